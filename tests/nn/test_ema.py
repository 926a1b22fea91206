"""The teacher against the recursion of its paper, written as a loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mutualign.nn.ema import EMATeacher


class Student(nn.Module):
    """Weights, running statistics and dropout: a teacher treats each in its own way."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.norm(self.linear(x)))


def change(student):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
        student.norm.running_mean.add_(1)
        student.norm.num_batches_tracked.add_(1)


@pytest.mark.parametrize("decay", [0.99, 0.7, 0.0])  # with 0.99, eight updates are a plain mean
def test_the_weights_follow_the_recursion_with_its_warm_up(decay):
    torch.manual_seed(0)
    student = Student()
    teacher = EMATeacher(student, decay)
    expected = {name: parameter.detach().double() for name, parameter in student.named_parameters()}
    for t in range(8):
        change(student)
        teacher.update(student)
        d = min(1 - 1 / (t + 1), decay)
        if d == 0:  # the first update is the student exactly
            assert torch.equal(teacher.model.linear.weight, student.linear.weight)
        for name, parameter in student.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * parameter.detach().double()
        for name, parameter in teacher.model.named_parameters():
            assert torch.allclose(parameter.double(), expected[name], rtol=1e-5, atol=1e-6), (t, name)


def test_running_statistics_move_as_the_weights_do_and_counts_are_copied():
    student = Student()
    teacher = EMATeacher(student, decay=0.75)
    expected = student.norm.running_mean.double()
    for t in range(6):
        change(student)
        teacher.update(student)
        d = min(1 - 1 / (t + 1), 0.75)
        expected = d * expected + (1 - d) * student.norm.running_mean.double()
        assert torch.allclose(teacher.model.norm.running_mean.double(), expected)
        assert torch.equal(teacher.model.norm.num_batches_tracked, student.norm.num_batches_tracked)


def test_a_teacher_is_never_in_training_mode_even_when_its_parent_is():
    student = Student().train()
    parent = nn.Module()
    parent.teacher = EMATeacher(student)
    for module in (parent.train(), parent.teacher.train(), parent.teacher.train(True)):
        assert not any(part.training for part in module.modules() if part is not parent)
    assert parent.training
    x = torch.randn(4, 3)
    assert torch.equal(parent.teacher(x), parent.teacher(x))
    assert torch.equal(parent.teacher(x), copy.deepcopy(student).eval()(x))


def test_a_teacher_neither_shares_weights_with_its_student_nor_gets_a_gradient():
    student = Student()
    teacher = EMATeacher(student)
    before = copy.deepcopy(teacher.state_dict())
    change(student)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    x = torch.randn(4, 3, requires_grad=True)
    out = teacher(x)
    assert not out.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_state_holds_the_count_of_updates_and_a_loaded_teacher_continues_alike():
    torch.manual_seed(0)
    student = Student()
    teacher = EMATeacher(student)
    for _ in range(3):
        change(student)
        teacher.update(student)
    assert int(teacher.state_dict()["updates"]) == 3

    loaded = EMATeacher(Student())
    loaded.load_state_dict(teacher.state_dict())
    change(student)
    teacher.update(student)
    loaded.update(student)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_students_without_weights_in_float64_and_under_torchs_transforms_have_teachers_too():
    EMATeacher(nn.ReLU()).update(nn.ReLU())  # nothing to average
    torch.set_default_dtype(torch.float64)
    try:
        student, narrow = Student(), Student().float()
        for each in (student, narrow):
            teacher = EMATeacher(each, decay=0.5)
            for _ in range(2):
                change(each)
                teacher.update(each)
            kinds = {name: value.dtype for name, value in each.state_dict().items()}
            assert {name: value.dtype for name, value in teacher.model.state_dict().items()} == kinds
    finally:
        torch.set_default_dtype(torch.float32)
    teacher, rows = EMATeacher(Student()), torch.randn(5, 4, 3)
    assert torch.allclose(torch.func.vmap(teacher)(rows), torch.stack([teacher(row) for row in rows]), atol=1e-6)
    assert not torch.func.grad(lambda x: teacher(x).sum())(rows[0]).any()  # pseudo-labels carry no gradient
