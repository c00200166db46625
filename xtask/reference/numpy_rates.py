"""Coding rates in NumPy, and the released layer-wise measure in PyTorch: what the benches of this project are compared with.

Cases and their forms (d = 768, N = 197, K = 12, p = 64, eps = 0.5, float64; entries from a hash that the benches share):

    rate       R(Z) and its gradient
                   cholesky   the smaller form, N x N; value and gradient from one Cholesky factor (SciPy, LAPACK)
                   inverse    the same, the gradient by the factor's inverse (potri) and one product
                   printed    1/2 slogdet(I_d + alpha Z Z^T) and alpha inv(I_d + alpha Z Z^T) Z, d x d
    rc         R^c(Z; U) and its gradient
                   cholesky   the smaller form, p x p in each head; all projections in one product
                   printed    NIPS eqs 7 and 9: slogdet and inverse of N x N in each head
    layerwise  R^c of unit-norm tokens, mean and deviation over a batch (B = 16, K = 6, n = 197, p = 64, float32)
                   official   1/2 logdet(I_n + c X X^T), n x n, as the released analysis script has it

`serve` speaks lines: after a warm-up it prints {"ready": true, "value": ...}; for every line it reads it measures for some
seconds and prints {"ms": MEDIAN, "repeats": COUNT}; it ends with its input. How many threads run is the environment's choice
(OPENBLAS_NUM_THREADS for NumPy and SciPy, OMP_NUM_THREADS for PyTorch). `show` prints all values and the kernels in use.
"""

import argparse
import json
import statistics
import sys
import time

import numpy as np

D, N, K, P, EPS_SQUARED = 768, 197, 12, 64, 0.25
BATCH, HEADS, TOKENS, HEAD_DIM = 16, 6, 197, 64


def entries(seed, *shape):
    """Numbers in [-1/2, 1/2), exact in float32: a hash of the row-major index, the same bits as in the benches."""
    x = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 % 2**32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return (((x ^ (x >> np.uint32(16))) >> np.uint32(8)) / 16777216.0 - 0.5).reshape(shape)


def tokens_and_bases():
    return entries(1, D, N) * 0.125, entries(2, D, K * P) * 0.125


def rate_cholesky(inverse):
    import scipy.linalg as sl

    z, _ = tokens_and_bases()
    alpha, diagonal = D / (N * EPS_SQUARED), np.arange(N)

    def run():
        m = z.T @ z
        m *= alpha
        m[diagonal, diagonal] += 1
        # symmetric, so its transpose is the same matrix in the order that LAPACK works in without a copy
        factor, lower = sl.cho_factor(m.T, lower=True, overwrite_a=True, check_finite=False)
        rate = np.log(factor[diagonal, diagonal]).sum()
        if inverse:
            full, _ = sl.lapack.dpotri(factor, lower=True, overwrite_c=True)
            full = np.tril(full) + np.tril(full, -1).T
            gradient = z @ full
        else:
            gradient = sl.cho_solve((factor, lower), z.T, check_finite=False).T
        gradient *= alpha
        return rate, gradient

    return run


def rate_printed():
    z, _ = tokens_and_bases()
    alpha, identity = D / (N * EPS_SQUARED), np.eye(D)

    def run():
        rate = np.linalg.slogdet(identity + alpha * (z @ z.T))[1] / 2
        return rate, alpha * np.linalg.inv(identity + alpha * (z @ z.T)) @ z

    return run


def rc_cholesky():
    import scipy.linalg as sl

    z, u = tokens_and_bases()
    gamma, diagonal = P / (N * EPS_SQUARED), np.arange(P)

    def run():
        v = (u.T @ z).reshape(K, P, N)
        m = v @ v.transpose(0, 2, 1)
        m *= gamma
        m[:, diagonal, diagonal] += 1
        factors = np.linalg.cholesky(m)
        rate = np.log(factors[:, diagonal, diagonal]).sum()
        for head, factor in zip(v, factors):
            # (p x p)^{-1} V: the factor's transpose is upper, in LAPACK's order without a copy
            head[:] = sl.cho_solve((factor.T, False), head, check_finite=False)
        gradient = u @ v.reshape(K * P, N)
        gradient *= gamma
        return rate, gradient

    return run


def rc_printed():
    z, u = tokens_and_bases()
    bases = [np.ascontiguousarray(u[:, k * P : (k + 1) * P]) for k in range(K)]
    gamma, identity = P / (N * EPS_SQUARED), np.eye(N)

    def run():
        rate, gradient = 0.0, np.zeros_like(z)
        for basis in bases:
            v = basis.T @ z
            m = identity + gamma * (v.T @ v)
            rate += np.linalg.slogdet(m)[1] / 2
            gradient += basis @ (v @ np.linalg.inv(m))
        return rate, gamma * gradient

    return run


def layerwise_official():
    import torch

    uz = torch.from_numpy(entries(3, BATCH, TOKENS, HEADS * HEAD_DIM).astype(np.float32))
    scalar, identity = HEAD_DIM / (TOKENS * 0.01), torch.eye(TOKENS)

    def run():
        x = uz.view(BATCH, TOKENS, HEADS, HEAD_DIM).transpose(1, 2)
        x = x / x.norm(dim=-1, keepdim=True)
        rates = torch.logdet(identity + scalar * x @ x.transpose(-2, -1)).sum(dim=1) / 2
        return rates.mean().item(), rates.std().item()

    return torch.no_grad()(run)


FORMS = {
    ("rate", "cholesky"): lambda: rate_cholesky(False),
    ("rate", "inverse"): lambda: rate_cholesky(True),
    ("rate", "printed"): rate_printed,
    ("rc", "cholesky"): rc_cholesky,
    ("rc", "printed"): rc_printed,
    ("layerwise", "official"): layerwise_official,
}


def measure(run, seconds):
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return {"ms": statistics.median(times), "repeats": len(times)}


def serve(case, form, seconds):
    if (case, form) not in FORMS:
        sys.exit(f"no form {form} of the case {case}: there are {', '.join(' '.join(pair) for pair in FORMS)}")
    run = FORMS[case, form]()
    measure(run, min(seconds, 0.5))
    print(json.dumps({"ready": True, "value": float(run()[0])}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(run, seconds)), flush=True)


def show():
    for (case, form), make in FORMS.items():
        value, second = make()()
        print(f"{case:10} {form:9} value {value:.12g}, gradient's norm or deviation {np.linalg.norm(second):.12g}")
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        sys.exit("threadpoolctl, which names the kernels, is not installed")
    for pool in threadpool_info():
        print(f"{pool['internal_api']} {pool['version']}: kernel {pool.get('architecture')}, {pool['num_threads']} threads")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="measure one form, once for every line read")
    server.add_argument("--case", required=True, choices=sorted({case for case, _ in FORMS}))
    server.add_argument("--form", required=True, choices=sorted({form for _, form in FORMS}))
    server.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    commands.add_parser("show", help="print the value of every form, and the kernels in use")
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve(arguments.case, arguments.form, arguments.seconds)
    else:
        show()


if __name__ == "__main__":
    main()
