"""ristretto255 in whole numbers, from the formulas of RFC 9496, section 4: slow, and independent of any library.

Points of the Edwards curve are added by the textbook's affine formula. Encoding, decoding and the map are the RFC's.
"""

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def negative(x):
    return x % P & 1


def absolute(x):
    x %= P
    return P - x if x & 1 else x


def sqrt_ratio(u, v):
    """Section 4.2: (was it a square, the non-negative root)."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    if check == -u % P or check == -u * SQRT_M1 % P:
        r = r * SQRT_M1 % P
    return check in (u % P, -u % P), absolute(r)


SQRT_AD_MINUS_ONE = 25063068953384623474111414158702152701244531502492656460079210482610430750235
INVSQRT_A_MINUS_D = sqrt_ratio(1, -1 - D)[1]
ONE_MINUS_D_SQ = (1 - D * D) % P
D_MINUS_ONE_SQ = (D - 1) ** 2 % P


def decode(data):
    """Section 4.3.1: the affine point, or None for bytes that are no encoding."""
    s = int.from_bytes(data, "little")
    if len(data) != 32 or s >= P or negative(s):
        return None
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-D * u1 * u1 - u2 * u2) % P
    square, root = sqrt_ratio(1, v * u2 * u2)
    den_x = root * u2 % P
    x = absolute(2 * s * den_x)
    y = u1 * root * den_x * v % P
    return None if not square or negative(x * y) or y == 0 else (x, y)


def encode(point):
    """Section 4.3.2, with z = 1."""
    x0, y0 = point
    t0 = x0 * y0 % P
    u1, u2 = (1 + y0) * (1 - y0) % P, t0
    root = sqrt_ratio(1, u1 * u2 * u2)[1]
    den1, den2 = root * u1 % P, root * u2 % P
    z_inv = den1 * den2 * t0 % P
    if negative(t0 * z_inv):
        x, y, den = y0 * SQRT_M1 % P, x0 * SQRT_M1 % P, den1 * INVSQRT_A_MINUS_D % P
    else:
        x, y, den = x0, y0, den2
    if negative(x * z_inv):
        y = -y % P
    return absolute(den * (1 - y)).to_bytes(32, "little")


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + y1 * x2) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def times(number, point):
    found = (0, 1)
    for bit in bin(number)[2:]:
        found = add(found, found)
        if bit == "1":
            found = add(found, point)
    return found


def mapped(t):
    """Section 4.3.4, MAP."""
    r = SQRT_M1 * t * t % P
    u, v = (r + 1) * ONE_MINUS_D_SQ % P, (-1 - r * D) * (r + D) % P
    square, s = sqrt_ratio(u, v)
    c = -1
    if not square:
        s, c = -absolute(s * t) % P, r
    n = (c * (r - 1) * D_MINUS_ONE_SQ - v) % P
    w0, w1 = 2 * s * v % P, n * SQRT_AD_MINUS_ONE % P
    w2, w3 = (1 - s * s) % P, (1 + s * s) % P
    return w0 * pow(w1, -1, P) % P, w2 * pow(w3, -1, P) % P


def derived(data):
    """Section 4.3.4: the element of 64 bytes."""
    halves = (int.from_bytes(data[at : at + 32], "little") & (2**255 - 1) for at in (0, 32))
    return encode(add(*(mapped(half % P) for half in halves)))
