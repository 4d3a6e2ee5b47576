"""The public calls: every form of argument, out=, views, overlap, plans, and the compiled path that repeats them."""

from __future__ import annotations

import inspect
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import einstride
from einstride import OperandTypeError, Plan, PlanMemoryError, ShapeError, einsum, einsum_path, plan

Array = np.ndarray[Any, np.dtype[Any]]


def integers(*shape: int, seed: int = 0, dtype: Any = float) -> Array:
    """Small integers, so that every order of summation gives the same result."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


FORMS: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("implicit", ("ij,jk", integers(2, 3), integers(3, 4)), ("ij,jk->ik",)),
    ("whitespace", (" i j,\tj k - > i k", integers(2, 3), integers(3, 4)), ("ij,jk->ik",)),
    ("bytes", (b"ij,jk->ik", integers(2, 3), integers(3, 4)), ("ij,jk->ik",)),
    ("Unicode", ("ñж,жx->ñx", integers(2, 3), integers(3, 4)), ("ij,jk->ik",)),
    ("lists", ("i,i->", [1, 2], [3, 4]), ("i,i->",)),
    ("scalars", (",i->i", 2.5, integers(3)), (",i->i",)),
    ("ellipsis", ("...ij,...jk->...ik", integers(2, 1, 2, 3), integers(5, 3, 4)), ("abij,bjk->abik",)),
]


@pytest.mark.parametrize(("arguments", "same"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_forms_of_subscripts(arguments: tuple[Any, ...], same: tuple[Any, ...]) -> None:
    expected = np.einsum(*same, *arguments[1:])
    for _ in range(3):  # the first call works it out, the next ones repeat it
        result = einsum(*arguments)
        assert np.array_equal(result, expected)
        assert type(result) is type(expected)


def test_interleaved_labels() -> None:
    a, b = integers(2, 3), integers(3, 4)
    for _ in range(3):
        assert np.array_equal(einsum(a, [0, 1], b, [1, 2], [0, 2]), a @ b)
        assert np.array_equal(einsum(a, [0, 1], b, [1, 2]), a @ b)
        assert np.array_equal(einsum(a, ["row", None], b, [None, (1, "x")], [(1, "x"), "row"]), (a @ b).T)
        assert np.array_equal(einsum(a, [..., 1], b, [1, 2], [..., 2]), a @ b)
        assert np.array_equal(einsum(a, np.array([0, 1]), b, range(1, 3)), a @ b)
        assert einsum(a, [0, 1], []) == a.sum()


def test_what_numpy_has_not() -> None:
    a = integers(3, 4)
    assert np.array_equal(einsum("i->ii", a[0]), np.diag(a[0]))
    assert np.array_equal(einsum("ij->iji", a)[1, :, 1], a[1])
    assert not einsum("ij->iji", a)[0, :, 1].any()
    assert np.array_equal(einsum("...j->j", a), a.sum(0))
    result = einsum("i->ii", a[0].astype(object))
    assert np.array_equal(result, np.diag(a[0]))


def test_more_labels_and_operands_than_numpy_has() -> None:
    high = [np.ones((1,) * 30 + (2,)) for _ in range(3)]
    labels = [[*range(40 * k, 40 * k + 30), 999] for k in range(3)]
    assert einsum(high[0], labels[0], high[1], labels[1], high[2], labels[2], []) == 2
    count = 70
    arguments = list(itertools.chain.from_iterable((np.eye(2), [k, k + 1]) for k in range(count)))
    assert np.array_equal(einsum(*arguments, [0, count]), np.eye(2))


@pytest.mark.parametrize("optimize", ["auto", True, False, None, "greedy", "optimal", ("greedy", 5), ("optimal", 1e9)])
def test_every_optimize_of_numpys(optimize: Any) -> None:
    a, b, c = integers(2, 3), integers(3, 4), integers(4, 5)
    for _ in range(2):
        assert np.array_equal(einsum("ij,jk,kl->il", a, b, c, optimize=optimize), a @ b @ c)


def test_a_path_as_optimize() -> None:
    a, b, c = integers(2, 3), integers(3, 4), integers(4, 5)
    path, table = einsum_path("ij,jk,kl->il", a, b, c)
    assert np.array_equal(einsum("ij,jk,kl->il", a, b, c, optimize=path), a @ b @ c)
    assert np.array_equal(np.einsum("ij,jk,kl->il", a, b, c, optimize=path), a @ b @ c)
    assert "Complete contraction:  ij,jk,kl->il" in table


def test_a_path_that_changes_between_calls_is_looked_at_again() -> None:
    a = integers(2, 2)
    path: list[Any] = ["einsum_path", (0, 1), (0, 1)]
    einsum("ij,jk,kl->il", a, a, a, optimize=path)
    path.pop()
    with pytest.raises(RuntimeError):
        einsum("ij,jk,kl->il", a, a, a, optimize=path)


@pytest.mark.parametrize("optimize", [False, True, "greedy", "optimal", ("greedy", 100)])
@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk,kl->il", ((2, 30), (30, 4), (4, 5))),
        ("ij->ji", ((2, 3),)),
        ("a,b,c->abc", ((2,), (3,), (4,))),
        ("acdf,jbje,gihb,hfac", ((2, 4, 5, 3), (3, 3, 3, 4), (2, 5, 6, 3), (6, 3, 2, 4))),
    ],
)
def test_numpys_planners_give_numpys_answer(subscripts: str, shapes: tuple[Any, ...], optimize: Any) -> None:
    arrays = [integers(*shape) for shape in shapes]
    assert einsum_path(subscripts, *arrays, optimize=optimize) == np.einsum_path(subscripts, *arrays, optimize=optimize)


def test_operands_in_any_layout_with_the_results_numpy_has() -> None:
    base = integers(4, 6, 5)
    layouts = {
        "reversed": base[::-1, :, ::-1],
        "sliced": base[::2, 1::2],
        "Fortran": np.asfortranarray(base),
        "transposed": base.transpose(2, 0, 1),
        "broadcast": np.broadcast_to(base[:1], (4, 6, 5)),
        "swapped": base.astype(">f8"),
        "unaligned": np.frombuffer(b"\0" + base.tobytes(), "f8", offset=1).reshape(base.shape),
        "empty": base[:0],
    }
    for name, array in layouts.items():
        for subscripts in ("abc->ca", "abc->", "abc,abd->cd", "abc,abc->abc"):
            operands = [array] * (1 + subscripts.count(","))
            expected = np.einsum(subscripts, *operands)
            for _ in range(2):
                result = einsum(subscripts, *operands)
                assert np.array_equal(result, expected), (name, subscripts)
                assert result.dtype == expected.dtype


@pytest.mark.parametrize("part", ["real", "imag"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_the_parts_of_complex_arrays(dtype: str, part: str) -> None:
    for rows, columns in ((1, 1), (3, 2), (7, 15), (9, 17), (20, 33), (40, 300), (3, 600)):
        # The last number of an imaginary part ends the memory that it lies in.
        strided = getattr((integers(rows, columns) + 1j * integers(rows, columns, seed=1)).astype(dtype), part)
        square, vector = integers(columns, columns, seed=2), integers(columns, seed=3)
        square, vector = square.astype(strided.dtype), vector.astype(strided.dtype)
        for subscripts, *operands in (
            ("ij,jk->ik", strided, square),
            ("ij,kj->ik", square, strided),
            ("ij,j->i", strided, vector),
            ("ij,ij->ij", strided, strided),
            ("ij->j", strided),
            ("ij->", strided),
        ):
            copies = [operand.copy() for operand in operands]
            assert np.array_equal(einsum(subscripts, *operands), np.einsum(subscripts, *copies)), subscripts


@pytest.mark.parametrize(
    ("subscripts", "left", "right"),
    [
        ("kr,pks->prs", (9, 5), (7, 9, 40)),
        ("rk,pks->prs", (14, 30), (20, 30, 33)),
        ("rk,pqks->qprs", (3, 4), (3, 2, 4, 64)),
        ("kr,bpks->bprs", (16, 17), (2, 5, 16, 48)),
        ("rk,spk->prs", (8, 9), (40, 6, 9)),
        ("bkr,bpks->bprs", (2, 16, 17), (2, 5, 16, 48)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "complex64"])
def test_products_along_an_axis_in_the_middle(
    subscripts: str, left: tuple[int, ...], right: tuple[int, ...], dtype: str
) -> None:
    a, b = integers(*left, dtype=dtype), integers(*right, seed=1, dtype=dtype)
    expected = np.einsum(subscripts, a.astype(complex), b.astype(complex))
    assert np.array_equal(einsum(subscripts, a, b), expected)
    into = np.zeros((expected.shape[0], 2, *expected.shape[1:]), dtype)
    einsum(subscripts, a, b, out=into[:, 0])
    assert np.array_equal(into[:, 0], expected)
    assert not into[:, 1].any()


def test_views_are_writable_and_repeat() -> None:
    a = integers(3, 3)
    for _ in range(3):
        view = einsum("ij->ji", a)
        assert view.base is a and view.flags.writeable
        view[0, 1] += 1
        assert view[0, 1] == a[1, 0]
        einsum("ii->i", a)[:] = 7
        assert (np.diag(a) == 7).all()
    a.flags.writeable = False
    assert not einsum("ij->ji", a).flags.writeable


def test_views_of_types_that_have_no_sum() -> None:
    for unit in ("s", "D"):  # the two must not be taken for one
        times = np.array([[1, 2]], f"m8[{unit}]")
        assert einsum("ij->ji", times).dtype == times.dtype


def test_results_without_axes_are_scalars() -> None:
    a = integers(3)
    for subscripts, operands in (("i->", (a,)), ("i,i->", (a, a)), ("", (np.array(5),)), (",", (np.array(5), 2))):
        for _ in range(2):
            result = einsum(subscripts, *operands)
            assert type(result) is type(np.einsum(subscripts, *operands))
    assert type(einsum("i->", a.astype(object))) is float


def test_subclasses_give_plain_arrays_as_in_numpy() -> None:
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(integers(2, 2))
    assert type(einsum("ij,jk->ik", matrix, matrix)) is np.ndarray
    assert np.array_equal(einsum("ij,jk->ik", matrix, matrix), matrix @ matrix)
    assert type(einsum("ij->ji", matrix)) is np.ndarray


def test_types_that_take_numpys_functions_over_are_asked() -> None:
    class Mine:
        def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return function.__name__, args[0], kwargs

    assert einsum("i,i->", np.ones(2), Mine()) == ("einsum", "i,i->", {})
    assert einsum("i->", Mine(), optimize=True, order="F")[2] == {"optimize": True, "order": "F"}


@pytest.mark.parametrize("dtype", ["float32", "complex64", ">f8", "int16"])
@pytest.mark.parametrize("casting", ["same_kind", "unsafe"])
def test_dtype_and_casting(dtype: Any, casting: Any) -> None:
    a = integers(3, 4, dtype="float64" if casting == "unsafe" or dtype != "int16" else "int32")
    if dtype == ">f8" and casting == "same_kind":
        a = a.astype("float32")
    for _ in range(2):
        result = einsum("ij,kj->ik", a, a, dtype=dtype, casting=casting)
        assert result.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(result, a @ a.T)


@pytest.mark.parametrize("order", ["C", "F", "A", "K", "c", "f", None])
def test_order(order: Any) -> None:
    for a, b in ((integers(2, 3), integers(3, 4)), (integers(3, 2).T, integers(4, 3).T)):
        result, expected = einsum("ij,jk->ik", a, b, order=order), np.einsum("ij,jk->ik", a, b, order=order)
        assert np.array_equal(result, expected)
        if (order or "K").upper() != "K":
            assert result.strides == expected.strides


@pytest.mark.parametrize("subscripts", ["ij,jk->ki", "ijk,j->kij", "ijk,jik->kji", "ijk->ki", "i,jk->kij"])
def test_only_a_contraction_is_in_c_order_where_numpy_has_another(subscripts: str) -> None:
    terms = subscripts.split("->")[0].split(",")
    operands = [integers(*["ijk".index(letter) + 2 for letter in term]) for term in terms]
    for _ in range(2):
        result, expected = einsum(subscripts, *operands), np.einsum(subscripts, *operands)
        assert np.array_equal(result, expected)
        if subscripts == "ij,jk->ki":
            assert result.flags.c_contiguous and not expected.flags.c_contiguous
        else:
            assert result.strides == expected.strides


def test_out_is_filled_and_returned() -> None:
    a, b = integers(2, 3), integers(3, 4)
    outs = [
        np.empty((2, 4)),
        np.empty((2, 4), order="F"),
        np.empty((4, 8))[::2, ::2],
        np.empty((2, 4), complex),
        np.empty((2, 4), ">f8"),
    ]
    for out in outs:
        for _ in range(2):
            out[...] = np.nan
            assert einsum("ij,jk->ik", a, b, out=out) is out
            assert np.array_equal(out, a @ b)
    total = np.array(0.0)
    assert einsum("ij->", a, out=total) is total
    assert total == a.sum()


def test_out_takes_part_in_the_promotion_as_in_numpy() -> None:
    narrow = np.array([100, 100], "int8")
    for _ in range(2):
        assert einsum("ij->j", narrow[:, None], out=np.zeros(1, "int64")) == [200]
        assert einsum("i->", narrow) == np.int8(-56)
        for value in (0, 1000):  # which NumPy 1 looks at
            out, expected = np.array(value), np.array(value)
            assert einsum("i->", narrow, out=out) == np.einsum("i->", narrow, out=expected)


def test_operands_without_axes_promote_as_in_numpy() -> None:
    for value in (2, 300, 2.5, 1e300):
        for _ in range(2):
            operands = np.array(value), np.ones(3, "int8")
            result, expected = einsum(",i->i", *operands), np.einsum(",i->i", *operands)
            assert result.dtype == expected.dtype
            assert np.array_equal(result, expected)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_three_operands_of_three_types_promote_as_in_numpy(order: tuple[int, ...]) -> None:
    for value in np.int16(22305), np.int16(3), np.int8(-1), np.uint8(200), np.float64(1e300), np.float64(2):
        every = (np.array(value), ""), (np.array([True, False]), "i"), (np.array([41, -67], "int8"), "i")
        operands, terms = zip(*[every[place] for place in order], strict=True)
        result, expected = [function(",".join(terms) + "->i", *operands) for function in (einsum, np.einsum)]
        assert result.dtype == expected.dtype
        assert np.array_equal(result, expected)


def test_a_type_that_numpy_1_promotes_to_but_cannot_cast_to_is_widened() -> None:
    small, signed = np.array([2, 3], "uint8"), np.array([4, 5], "int8")
    result = einsum(",i,i,i->i", np.array(95, "uint8"), small, signed, signed)
    assert result.dtype == "int16"
    assert result.tolist() == [95 * 2 * 16, 95 * 3 * 25]


def test_out_of_a_narrower_type_when_casting_allows() -> None:
    out = np.zeros(3, "int16")
    einsum("ij->i", np.full((3, 2), 1.25), out=out, casting="unsafe")
    assert out.tolist() == [2, 2, 2]


def test_out_that_overlaps_an_operand_is_as_if_it_did_not() -> None:
    for repeat in range(3):
        a, b = integers(3, 3, seed=repeat), integers(3, 3, seed=repeat + 9)
        expected = a @ b
        assert np.array_equal(einsum("ij,jk->ik", a, b, out=b), expected)
        c = integers(3, 3, seed=repeat)
        expected = c.T.copy()
        assert np.array_equal(einsum("ij->ji", c, out=c), expected)
        d = integers(6)
        expected = d[:5] * d[1:]
        assert np.array_equal(einsum("i,i->i", d[:5], d[1:], out=d[1:]), expected)


def test_a_repeated_call_sees_that_out_has_become_read_only() -> None:
    a, out = integers(3), np.zeros(3)
    einsum("i,i->i", a, a, out=out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        einsum("i,i->i", a, a, out=out)


def test_equal_layouts_of_different_dtypes_are_told_apart() -> None:
    for dtype in ("int64", "uint64", "float64", "complex64", "int64"):
        result = einsum("i,i->i", integers(4, dtype=dtype), integers(4, dtype=dtype))
        assert result.dtype == dtype
        assert np.array_equal(result, integers(4, dtype=dtype) ** 2)


def test_empty_sums_are_zero_and_empty_results_are_empty() -> None:
    for dtype in (bool, "int8", "float16", "complex128", object, "longdouble"):
        for _ in range(2):
            zeros = einsum("ij,jk->ik", np.ones((2, 0), dtype), np.ones((0, 3), dtype))
            assert zeros.shape == (2, 3) and not zeros.any()
            assert einsum("ij,jk->ik", np.ones((0, 2), dtype), np.ones((2, 3), dtype)).shape == (0, 3)


def test_python_numbers_and_long_doubles() -> None:
    thirds = np.array([[Fraction(1, 3)] * 3] * 3, dtype=object)
    assert einsum("ij,ji->", thirds, thirds) == 1
    a = integers(3, 3, dtype="longdouble")
    result = einsum("ij,jk->ki", a, a, order="F")
    assert result.dtype == np.longdouble
    assert np.array_equal(result, (a @ a).T)
    assert result.flags.f_contiguous
    out = np.zeros((3, 3), object)
    assert einsum("ij,jk->ik", thirds, thirds, out=out) is out
    assert (out == Fraction(1, 3)).all()


def test_the_signature_is_numpys_and_memory() -> None:
    parameters = inspect.signature(einsum).parameters
    assert list(parameters) == ["subscripts", "operands", "out", "dtype", "order", "casting", "optimize", "memory"]
    assert parameters["order"].default == "K" and parameters["casting"].default == "safe"
    assert pickle.loads(pickle.dumps(einsum)) is einsum


def test_memory_bounds_the_intermediates() -> None:
    a = integers(10, 10)
    path = ["einsum_path", (0, 1), (0, 1)]
    buffers = 1 << 20  # more than products of this size take at any level
    assert np.array_equal(einsum("ij,jk,kl->il", a, a, a, optimize=path, memory=800 + buffers), a @ a @ a)
    with pytest.raises(PlanMemoryError):
        einsum("ij,jk,kl->il", a, a, a, optimize=path, memory=799)
    with pytest.raises(MemoryError):
        plan("ij,jk,kl->il", a, a, a, optimize=path, memory=799)


# ---- Plans -----------------------------------------------------------------------------------------------------


def test_a_plan_from_shapes_or_arrays() -> None:
    a, b = integers(2, 3), integers(3, 4)
    for planned in (plan("ij,jk->ik", (2, 3), (3, 4)), plan("ij,jk->ik", a, b), plan(a, [0, 1], (3, 4), [1, 2])):
        for _ in range(2):
            assert np.array_equal(planned(a, b), a @ b)
            assert np.array_equal(planned(a, np.asfortranarray(b)), a @ b)
        out = np.empty((2, 4))
        assert planned(a, b, out=out) is out
        assert np.array_equal(out, a @ b)


def test_a_plan_has_a_dtype() -> None:
    assert plan("i->", (3,)).dtype == np.float64
    single = plan("i->", (3,), dtype="float32")
    assert single.dtypes == (np.dtype("float32"),)
    assert single(np.ones(3, "float32")).dtype == np.float32
    mixed = plan("i,i->", np.ones(3, "int8"), np.ones(3, "float32"))
    assert mixed.dtypes == (np.dtype("int8"), np.dtype("float32")) and mixed.dtype == "float32"
    wide = plan("i->", np.ones(3, "int8"), dtype="int64")
    assert wide(np.full(3, 100, "int8")) == 300


def test_a_plan_says_what_it_will_do() -> None:
    planned = plan("ij,jk,kl->il", (2, 100), (100, 100), (100, 90))
    assert planned.path == ["einsum_path", (0, 1), (0, 1)]
    assert planned.cost.flops == 2 * (2 * 100 * 100 + 2 * 100 * 90)
    assert planned.cost.peak >= 8 * (2 * 100 + 2 * 90)
    assert planned.program is not None
    assert len(planned.program.kernels) == len(planned.tree.groups) == 2
    assert "il" in planned.explain()
    assert plan("i->", (3,), dtype=object).program is None


def test_plans_are_frozen_values() -> None:
    planned = plan("ij,jk->ik", (2, 3), (3, 4))
    assert planned == plan("ab, bc", (2, 3), (3, 4))
    assert hash(planned) == hash(plan("ab, bc", (2, 3), (3, 4)))
    assert planned != plan("ij,jk->ik", (2, 3), (3, 5))
    with pytest.raises(AttributeError):
        planned.dtype = np.dtype("int8")  # type: ignore[misc]


def test_a_pickled_plan_runs() -> None:
    a, b = integers(2, 3), integers(3, 4)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy: Plan = pickle.loads(pickle.dumps(plan("ij,jk->ik", a, b), protocol))
        assert np.array_equal(copy(a, b), a @ b)


def test_a_plan_refuses_what_it_is_not_for() -> None:
    planned = plan("ij->j", (2, 3))
    with pytest.raises(ShapeError):
        planned(np.ones((3, 2)))
    with pytest.raises(OperandTypeError):
        planned(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError):
        planned(np.ones((2, 3)), np.ones((2, 3)))
    assert np.array_equal(planned(integers(2, 3).astype(">f8")), integers(2, 3).sum(0))


def test_threads_may_share_a_plan_and_einsum() -> None:
    planned = plan("ij,jk->ik", (20, 30), (30, 40))

    def work(seed: int) -> bool:
        good = True
        for k in range(50):
            a, b = integers(20, 30, seed=seed), integers(30, 40, seed=k)
            good &= np.array_equal(planned(a, b), a @ b)
            good &= np.array_equal(einsum("ij,jk->ki", a[: k % 20], b), (a[: k % 20] @ b).T)
        return good

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_more_calls_than_any_cache_holds() -> None:
    for extent in range(3000):
        a = np.ones(extent % 1500)
        assert einsum("i->", a) == a.size
        if extent % 10 == 0:
            assert einsum(a, [0], []) == a.size


def test_public_names() -> None:
    assert set(einstride.__all__) <= set(dir(einstride))
    assert sorted(einstride.__all__) == einstride.__all__
