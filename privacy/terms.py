"""The terms of a plan: who takes part, what is trained and how, and what it may spend."""

from dataclasses import dataclass, field

from coterie.privacy.schema import LATER, integer, number, one_of, text

__all__ = [
    "COUNTS",
    "CUSTOMER",
    "MATCHING",
    "NOTHING",
    "NO_METRICS",
    "NO_TRAINING",
    "PERSON",
    "PROPENSITY",
    "RECOMMENDERS",
    "ROWS",
    "SECURE",
    "TOKENS",
    "TRAINED",
    "Catalogued",
    "Cohort",
    "Matching",
    "Metrics",
    "Model",
    "Partner",
    "Privacy",
    "Recommendation",
    "Secure",
    "Split",
    "Training",
    "Tuning",
]

SECURE = "secure-aggregation"

CUSTOMER, PERSON = "customer of one partner", "person at up to k partners"

TRAINED = ("two-tower", "mf-bpr", "mf-softmax", "neumf")
"""Recommenders that are trained by clipped gradients."""

PROPENSITY = ("additive", "logistic", "mlp")

RECOMMENDERS = ("popularity", "item-gram", "ials", *TRAINED)

MATCHING = "matching"
"""The task of a plan that matches customers, and trains nothing."""

COUNTS, ROWS, TOKENS = "counts", "rows", "tokens"


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A company in the roster.

    Args:
        name: Its name in the study.
        customers: Order of magnitude of its training customers, declared by the partner as public. It sets the
            normaliser of its gradients and its weight in the average.
        key: Its identity key, "ed25519:" and base64; empty in a study file, filled when the plan is signed.
    """

    name: str = field(metadata=text(60))
    customers: int = field(metadata=integer(1, 1_000_000_000))
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained.

    Args:
        family: "additive" on private bins, "logistic", or "mlp" with one hidden layer; for recommendation one of
            `RECOMMENDERS`; "auto", which a rule on public facts replaces before signing; for matching "none".
        hidden: Width of the hidden layer (mlp alone).
    """

    family: str = field(metadata=one_of("none", "auto", *PROPENSITY, *RECOMMENDERS))
    hidden: int = field(default=32, metadata=integer(1, 1024))


@dataclass(frozen=True, kw_only=True)
class Catalogued:
    """The catalogue of items that the partners agreed on.

    Args:
        items: How many items it has.
        digest: Of codes and public attributes, as `coterie partner catalogue` prints it.
        kind: What codes are: "gtin" (GS1 numbers, whose check digit is verified) or "taxonomy".
        attributes: How many columns its encoded attributes have.
    """

    items: int = field(metadata=integer(2, 1_000_000))
    digest: str = field(metadata=text(71))
    kind: str = field(default="taxonomy", metadata=one_of("gtin", "taxonomy"))
    attributes: int = field(default=0, metadata=integer(0, 5000))


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """How a recommender is made; all of it public, and free of privacy cost but for `counts`.

    Args:
        counts: Share of the training budget, as squared Gaussian noise multipliers count it, for the sum of items'
            popularity that comes before all other sums; without use for popularity itself.
        keep: Items that item-gram and ials model, those most counted.
        rank: Greatest rank of item-gram's factors.
        dimension: Length of embeddings.
        exponent: Items are scaled by their popularity to the power of minus this before a Gram row is formed.
        ridge: Ridge of the item-side solution, as a share of the declared customers.
        content: Weight of the local content term from public item attributes; 0 for none.
        negatives: Items that a step of a trained family draws; the same for all customers, and public.
    """

    counts: float = field(default=0.1, metadata=number(0, 1, ends="()"))
    keep: int = field(default=700, metadata=integer(2, 5000))
    rank: int = field(default=64, metadata=integer(1, 1024))
    dimension: int = field(default=16, metadata=integer(1, 256))
    exponent: float = field(default=0.25, metadata=number(0, 2))
    ridge: float = field(default=0.01, metadata=number(0, 10, ends="(]"))
    content: float = field(default=0.0, metadata=number(0, 100))
    negatives: int = field(default=128, metadata=integer(1, 10_000))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How it is trained.

    Args:
        rounds: Published rounds; 0 for matching, which has none.
        local_steps: DP-SGD steps that a partner takes in a round; where every step is a sum over all partners
            (recommendation, secure aggregation), sums in a round.
        sample_rate: Poisson rate at which a step includes each customer; public.
        learning_rate: Step size of the partner's SGD.
        clip: Greatest L2 norm of one customer's gradient.
        positive_weight: Weight of rows with label 1 in the loss; public.
        server: "fedavg" or "fedadam".
        server_learning_rate: Step size of the coordinator.
        spare: Attempts beyond the first that a partner may be charged for in the whole study after crashes;
            noise is calibrated for `rounds + spare`.
    """

    rounds: int = field(metadata=integer(0, 1000))
    local_steps: int = field(metadata=integer(1, 10_000))
    sample_rate: float = field(metadata=number(1e-6, 1))
    learning_rate: float = field(metadata=number(0, 1000, ends="(]"))
    clip: float = field(metadata=number(1e-6, 1000))
    positive_weight: float = field(default=1.0, metadata=number(0, 1000, ends="(]"))
    server: str = field(default="fedavg", metadata=one_of("fedavg", "fedadam"))
    server_learning_rate: float = field(default=1.0, metadata=number(0, 1000, ends="(]"))
    spare: int = field(default=0, metadata=integer(0, 100))


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the study's epsilon is divided, as shares of it.

    Training touches the training customers alone and metrics the held-out ones alone; a customer is in one of
    the groups for life, so the groups compose in parallel (PRIVACY rule 13) and each may use the whole.
    Encodings come from public bounds and use nothing.

    Args:
        training: Share for the model updates.
        metrics: Share for the score histograms.
    """

    training: float = field(default=1.0, metadata=number(0, 1, ends="(]"))
    metrics: float = field(default=1.0, metadata=number(0, 1, ends="(]"))


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What the study may spend, and what is assumed.

    Args:
        unit: "customer of one partner": all rows of one customer at one partner, add/remove. "person at up to k
            partners": all rows of one person at all of them, each of which holds its part to a k-th.
        epsilon: The total for any one customer over everything that the study releases.
        delta: The total delta; below 1e-10 the accountant does not bound its own round-off, so it is refused.
        trust: "local": every release is private on its own, whoever sees it. "secure-aggregation": sums over the
            partners are opened and nothing else, and are private against the coordinator and `colluders` of them.
        threshold: T, least partners whose replies make a round; with secure aggregation no sum is opened over fewer.
        colluders: c, partners assumed to help the coordinator, at least 1.
        split: How epsilon is divided.
        partners_per_person: k, for the second unit.
    """

    unit: str = field(metadata=one_of(CUSTOMER, PERSON))
    epsilon: float = field(metadata=number(0, 20, ends="(]"))
    delta: float = field(metadata=number(1e-10, 1e-3))
    trust: str = field(metadata=one_of("local", SECURE))
    threshold: int = field(metadata=integer(1, 1000))
    colluders: int = field(metadata=integer(1, 1000))
    split: Split = Split()
    partners_per_person: int | None = field(default=None, metadata=integer(2, 255))


@dataclass(frozen=True, kw_only=True)
class Secure:
    """How steps are made from secure sums; without use under another trust.

    With secure aggregation every local step is a sum over all partners, and the coordinator takes it: the learning
    rate of `training` is its own, and `server` has no part.

    Args:
        batch_cap: Customers for whom a sum of one partner has room, in every coordinate; what lies beyond is cut off,
            at no loss of privacy. Twice the largest sample that the declared sizes lead to when left out.
        optimizer: "sgd", "adam", or "newton": SGD along gradients divided by the curvature that the plan's private bins
            lead to.
        momentum: Of SGD and newton, in [0, 1).
        averaging: Decay of the average over steps that is published, in [0, 1); 0 publishes the last step.
    """

    batch_cap: int | None = field(default=None, metadata=integer(1, 1_000_000_000))
    optimizer: str = field(default="sgd", metadata=one_of("sgd", "adam", "newton"))
    momentum: float = field(default=0.0, metadata=number(0, 1, ends="[)"))
    averaging: float = field(default=0.0, metadata=number(0, 1, ends="[)"))


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Which metrics are released.

    Args:
        rounds: Rounds after which held-out score histograms are released; the last one is the result.
        bins: Bins of a histogram, equal in log-odds from -6 to 6, the outer ones open.
        groups: A categorical column of the contract, such as a protected attribute: histograms count its words, and
            who has none, apart, at no further cost.
    """

    rounds: tuple[int, ...]
    bins: int = field(default=24, metadata=integer(4, 200))
    groups: str = field(default="", metadata={**text(100, least=0), **LATER})


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Which partners may take part.

    Args:
        minimum_customers: Least training customers that a partner must hold; one that holds fewer is
            "unavailable" and does not say why.
        segments: Customer segments, by the partners' own policies, that take part and pay; None for all. The
            others' budgets are not touched.
        partners: Only persons who are customers of at least so many partners take part, as the plan's match says; those
            of more than the plan's `partners_per_person` are left out. 1 for all customers, and no match.
    """

    minimum_customers: int = field(default=100, metadata=integer(10, 1_000_000_000))
    segments: tuple[str, ...] | None = field(default=None, metadata=text(60))
    partners: int = field(default=1, metadata={**integer(1, 255), **LATER})


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How partners find customers that they share; all of it is public.

    Args:
        identifier: By which kind of identifier: "email", "phone" or "loyalty".
        outcome: What comes out. "counts": how many customers each set of partners shares, noisy and charged. "rows":
            each pair of partners learns which of its own customers the other has. "tokens": each partner gets a token
            of the match for each of its own customers, equal for equal identifiers. The last two are disclosures, which
            no epsilon covers.
        most: Most identifiers of one partner.
        least: Least length of a list that is taken; and a noisy count below it is not printed.
        size_class: Lists for rows and tokens are filled up to a multiple of it, so that their length says little.
        epoch: Of the match: tokens of different epochs cannot be linked.
        teller: The partner who counts; the first of the roster when left out.
    """

    identifier: str = field(metadata=one_of("email", "phone", "loyalty"))
    outcome: str = field(metadata=one_of(COUNTS, ROWS, TOKENS))
    most: int = field(default=1_000_000, metadata=integer(1, 10_000_000))
    least: int = field(default=50, metadata=integer(2, 1_000_000))
    size_class: int = field(default=1024, metadata=integer(1, 1_000_000))
    epoch: int = field(default=1, metadata=integer(1, 1_000_000))
    teller: str = field(default="", metadata=text(60, least=0))


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the plan's settings were chosen; declared, printed, and not covered by epsilon.

    Args:
        configurations: How many were tried.
        data: On what.
    """

    configurations: int = field(default=0, metadata=integer(0, 1_000_000))
    data: str = field(default="none", metadata=text(200))


NOTHING, NO_METRICS = Model(family="none"), Metrics(rounds=())
NO_TRAINING = Training(rounds=0, local_steps=1, sample_rate=1.0, learning_rate=1.0, clip=1.0)
"""What a plan that matches customers says of training."""
