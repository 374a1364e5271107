"""The reviewer's page in a real browser: keyboard alone, offline, on paper, by day and by night."""

import dataclasses
import itertools
import re
import shutil

import pytest

from coterie.privacy.review.cross import cross_check
from coterie.privacy.review.kept import file_digest
from coterie.privacy.review.page.content import Reviewed
from coterie.privacy.review.page.outlook import outlook
from coterie.privacy.review.page.render import render
from coterie.privacy.review.page.wording import percent
from coterie.privacy.review.proofs import named_in, proofs_of
from coterie.privacy.review.verify import verify_bundle
from coterie.tests.clients.federation import NAMES
from coterie.tests.privacy.review.bundles import made, opened, resigned

pytestmark = pytest.mark.slow

MISSING = (
    "no browser: install Chromium so that `chromium` is on the path (apt-get install chromium), and Playwright into "
    "the environment (pip install playwright); the page is not proved without one"
)
# Every text that is shown, with the colours behind it: alpha is laid over what is below.
CONTRAST = """() => {
  const numbers = (colour) => { const n = colour.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(numbers(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const ink = numbers(node.closest("svg") ? style.fill : style.color);
    const ground = behind(node);
    const pair = [light(over(ink, ground)), light(ground)].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), node.tagName, walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""
FOCUSED = """() => {
  const node = document.activeElement;
  const style = getComputedStyle(node);
  return { name: node.tagName, id: node.id, top: node.getBoundingClientRect().top + scrollY,
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, href: node.getAttribute("href"),
    text: node.textContent.trim().slice(0, 60) };
}"""


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail(MISSING)
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        pytest.fail(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "amber"
    path.write_bytes(made().bundle)
    verdict = verify_bundle(path)
    return Reviewed(verdict, proofs_of(path), outlook(verdict), file_digest(path))


@pytest.fixture(scope="module")
def files(reviewed, tmp_path_factory):
    """Pages of every status, and of all partners."""
    folder = tmp_path_factory.mktemp("pages")
    bundle = opened(made().bundle)
    bundle.of("reserve")[0]["body"]["random"] = "seeded"
    (folder / "bad").write_bytes(resigned(bundle, made().partner, made().coordinator))
    bad = verify_bundle(folder / "bad", accounting=False)
    failing = Reviewed(bad, proofs_of(folder / "bad", named=named_in(bad)))
    check = reviewed.verdict.checks[0]
    undecided = dataclasses.replace(
        reviewed.verdict, checks=(dataclasses.replace(check, status="open", findings=bad.checks[9].findings[:1]),)
    )
    verdicts = []
    for name in NAMES:
        (folder / name).write_bytes(made().bundles[name])
        verdicts.append(verify_bundle(folder / name, accounting=False))
    texts = {
        "holds": render([reviewed]),
        "fails": render([failing]),
        "open": render([dataclasses.replace(reviewed, verdict=undecided)]),
        "all": render([Reviewed(verdict) for verdict in verdicts], crossed=[cross_check(verdicts)]),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.fixture
def visit(browser, files):
    """Open a page offline; every request but for the file itself, and every word on the console, is a failure."""
    contexts, wrong = [], []

    def open_page(name="holds", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on(
            "request", lambda request: None if request.url.split("#")[0] == files[name] else wrong.append(request.url)
        )
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(files[name])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def tabbed(page, most=400):
    """Everything that Tab reaches, in order."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUSED)
        if here["name"] == "BODY":
            break
        found.append(here)
    return found


def to(page, selector):
    """Press Tab until an element has the focus."""
    for _ in range(400):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} cannot be reached")


@pytest.mark.parametrize("name", ["holds", "fails", "open", "all"])
def test_it_asks_for_nothing_and_says_nothing_to_the_console(visit, name):
    page = visit(name)
    page.wait_for_timeout(200)
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_tab_goes_down_the_page_and_shows_where_it_is(visit):
    page = visit()
    found = tabbed(page)
    assert found[0]["text"] == "Skip to the verdict"
    assert all(here["outline"] for here in found)
    tops = [here["top"] for here in found[1:]]
    assert all(later >= earlier - 60 for earlier, later in itertools.pairwise(tops))
    names = [here["name"] for here in found]
    assert names.count("INPUT") == 2
    assert names.count("SUMMARY") == page.locator("summary:visible").count()
    assert names.count("A") == page.locator("a:visible").count()


def test_arrow_keys_move_the_dials_and_the_figures(visit, reviewed):
    page = visit()
    found = reviewed.outlook
    box = page.locator("[data-outlook]")
    to(page, "[data-dial=epsilon]")
    page.keyboard.press("Home")
    for at, epsilon in enumerate(found.epsilons):
        told = page.locator("[data-dial=epsilon]").get_attribute("aria-valuetext")
        assert told.startswith(f"epsilon {epsilon:g}")
        for index, row in enumerate(found.rows):
            cells = box.locator("tbody tr").nth(index)
            assert cells.locator("[data-cell=fit]").text_content() == str(int((1 - row.share) / row.costs[at]))
            assert cells.locator("[data-cell=used]").text_content() == percent(row.share + row.costs[at])
            assert cells.locator("[data-cell=left]").text_content() == percent(1 - row.share - row.costs[at])
        page.keyboard.press("ArrowRight")
    before = page.locator("[data-told=sum]").text_content()
    assert f"ε {found.epsilons[-1]:g} would fit" in before
    to(page, "[data-dial=number]")
    page.keyboard.press("End")
    after = page.locator("[data-told=sum]").text_content()
    fits = min(int((1 - row.share) / row.costs[-1]) for row in found.rows)
    assert (f"has room for {fits}." in after) is (fits < 30)
    assert fits < 30
    assert page.locator("[data-cell=used]", has_text="does not fit").count() >= 1


def test_the_table_says_the_same_as_the_dials(visit, reviewed):
    page = visit()
    cells = page.locator("details.table tbody tr").first.locator("td").all_text_contents()
    costs = [(percent(row.costs[0]), int((1 - row.share) / row.costs[0])) for row in reviewed.outlook.rows]
    assert cells == [f"{part}; {fits} fit" for part, fits in costs]


def test_enter_opens_an_entry_with_its_proof(visit, reviewed):
    page = visit()
    to(page, ".entries summary")
    assert not page.locator("#p1-e1").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("#p1-e1").is_visible()
    assert reviewed.proofs[0].leaf in page.locator("#p1-e1").text_content()


def test_a_finding_leads_to_its_entry(visit):
    page = visit("fails")
    to(page, ".checks a")
    target = page.evaluate("document.activeElement.hash")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.classList.contains('proof')")
    assert page.locator(target).is_visible()
    assert f"#{page.evaluate('document.activeElement.id')}" == target


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["holds", "fails", "open", "all"])
def test_every_text_stands_out_from_its_ground(visit, name, scheme):
    page = visit(name, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = page.evaluate(CONTRAST)
    assert len(found) > 100
    assert [told for told in found if told[0] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", dark)) < 200) is (scheme == "dark")


@pytest.mark.parametrize("width", [320, 420, 768, 1280])
def test_nothing_is_cut_off_or_makes_the_page_wider(visit, width):
    page = visit(viewport={"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints(visit, tmp_path):
    page = visit(color_scheme="dark")
    data = page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert data.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) in range(2, 40)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".dials").is_visible()
    assert page.locator("details.table table").is_visible()


def test_without_scripts_the_figures_are_in_a_table(visit):
    page = visit(java_script_enabled=False)
    assert not page.locator(".whatif").is_visible()
    page.locator("details.table summary").click()
    assert page.locator("details.table table").is_visible()


def test_the_content_policy_stops_what_is_not_the_pages_own(browser, files):
    with browser.new_context() as context:
        page = context.new_page()
        stopped = []
        page.on("console", lambda message: stopped.append(message.text))
        page.goto(files["holds"])
        page.evaluate("""() => {
          window.ran = false;
          const script = document.createElement("script");
          try {
            script.text = "window.ran = true";
            document.body.append(script);
          } catch (error) { console.log(String(error)); }
          document.body.insertAdjacentElement("beforeend", new Image()).src = "https://b.example/x.png";
        }""")
        page.wait_for_timeout(200)
        assert page.evaluate("window.ran") is False
        assert any("Content Security Policy" in text for text in stopped)
