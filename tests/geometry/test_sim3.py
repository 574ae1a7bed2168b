"""Similarities: against the matrix exponential, group axioms, and as an extension of SE(3)."""

import pytest
import torch

from slam.geometry import se3, sim3

F64 = torch.float64


def tangents(angle, log_s, n=20, seed=0):
    draw = torch.randn(n, 6, dtype=F64, generator=torch.Generator().manual_seed(seed))
    omega = angle * draw[:, 3:] / draw[:, 3:].norm(dim=-1, keepdim=True)
    return torch.cat([draw[:, :3], omega, torch.full((n, 1), log_s, dtype=F64)], -1)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.5, 3.0, 3.1415])
@pytest.mark.parametrize("log_s", [0.0, 1e-9, -1e-4, 0.7, -2.0])
def test_log_undoes_exp(angle, log_s):
    zeta = tangents(angle, log_s)
    torch.testing.assert_close(sim3.log(sim3.exp(zeta)), zeta, rtol=0, atol=1e-11)


def test_with_scale_one_it_is_se3():
    zeta = tangents(1.3, 0.0)
    torch.testing.assert_close(sim3.exp(zeta), se3.exp(zeta[:, :6]), rtol=0, atol=1e-13)
    T = se3.exp(zeta[:, :6])
    torch.testing.assert_close(sim3.log(T)[:, :6], se3.log(T), rtol=0, atol=1e-12)


def test_scale_of_parts():
    R = se3.so3_exp(tangents(2.0, 0.0)[:, 3:6])
    s, t = torch.linspace(0.1, 10, 20, dtype=F64), torch.ones(20, 3, dtype=F64)
    S = se3.from_rt(s[:, None, None] * R, t)
    torch.testing.assert_close(sim3.scale(S), s, rtol=1e-13, atol=0)
    p = torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    expected = s[:, None] * (R @ p) + t
    torch.testing.assert_close((S[:, :3, :3] @ p) + S[:, :3, 3], expected, rtol=0, atol=1e-13)


def test_a_pure_scaling_by_log_scale():
    S = sim3.exp(torch.tensor([0, 0, 0, 0, 0, 0, 0.5], dtype=F64))
    expected = torch.diag(torch.tensor([1, 1, 1, 0], dtype=F64)) * torch.e**0.5
    expected[3, 3] = 1
    torch.testing.assert_close(S, expected, rtol=0, atol=1e-14)


def test_group_axioms():
    A, B = sim3.exp(tangents(1.0, 0.4)), sim3.exp(tangents(2.5, -0.9, seed=1))
    eye = torch.eye(4, dtype=F64).expand_as(A)
    torch.testing.assert_close(A @ sim3.inverse(A), eye, rtol=0, atol=1e-13)
    torch.testing.assert_close(sim3.inverse(A @ B), sim3.inverse(B) @ sim3.inverse(A), rtol=0, atol=1e-12)
    torch.testing.assert_close(sim3.scale(A @ B), sim3.scale(A) * sim3.scale(B), rtol=1e-12, atol=0)


@pytest.mark.parametrize("log_s", [0.0, 0.6, -1.5])
def test_adjoint_moves_an_update_to_the_other_side(log_s):
    S, zeta = sim3.exp(tangents(1.2, log_s)), 0.3 * tangents(1.0, 0.5, seed=4)
    moved = (sim3.adjoint(S) @ zeta[..., None]).squeeze(-1)
    torch.testing.assert_close(S @ sim3.exp(zeta), sim3.exp(moved) @ S, rtol=0, atol=1e-11)
