"""V3 node classes: schema, derived V1 names, execution, types (contract: custom-nodes.md sections 4.1 to 4.4)."""

from __future__ import annotations

import asyncio
import enum
import json
import operator
import pickle
from typing import Any

import pytest

from comfy.nodes.v3.iotype import IoType
from comfy.nodes.v3.node import NodeOutputInvalid
from comfy_api.latest import ComfyExtension, io


class Everything(io.ComfyNode):
    """A node with a slot of many kinds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Everything",
            display_name="All of it",
            category="tests",
            description="Words.",
            is_output_node=True,
            is_deprecated=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Int.Input("count", default=3, min=0, max=9, control_after_generate=True, display_mode=io.NumberDisplay.slider),
                io.Float.Input("share", default=0.5, step=0.1, round=0.01, tooltip="How much."),
                io.String.Input("text", dynamic_prompts=True, placeholder="…"),
                io.Boolean.Input("switch", default=False, label_on="yes", label_off="no", optional=True, lazy=True),
                io.Combo.Input("choice", options=["a", "b"], upload=io.UploadType.image, image_folder=io.FolderType.output),
                io.MultiCombo.Input("some", options=["a", "b"], default=["a"], placeholder="pick", chip=True),
                io.MultiType.Input(io.Float.Input("mixed", default=1.0), types=[io.Int, io.Mask]),
                io.AnyType.Input("anything", optional=True),
                io.Custom("MY_TYPE").Input("mine", display_name="Mine"),
            ],
            outputs=[
                io.Image.Output(display_name="picture", tooltip="A picture."),
                io.Int.Output("numbers", is_output_list=True),
                io.Combo.Output(options=["x", "y"]),
            ],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        return io.NodeOutput(1, 2, 3, ui={"text": ["done"]})


def returning(value: Any, **schema: Any) -> type[io.ComfyNode]:
    """A node with two outputs whose execute gives `value`."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Node", outputs=[io.Int.Output(), io.Int.Output()], **schema)

        @classmethod
        def execute(cls) -> Any:
            return value

    return Node


def test_object_info_of_a_v3_node_carries_every_field() -> None:
    info = json.loads(json.dumps(Everything.GET_NODE_INFO_V1()))
    required = info["input"]["required"]
    assert required["count"] == ["INT", {"default": 3, "min": 0, "max": 9, "control_after_generate": True, "display": "slider"}]
    assert required["share"] == ["FLOAT", {"default": 0.5, "step": 0.1, "round": 0.01, "tooltip": "How much."}]
    assert required["text"] == ["STRING", {"multiline": False, "dynamicPrompts": True, "placeholder": "…"}]
    assert info["input"]["optional"]["switch"] == ["BOOLEAN", {"default": False, "label_on": "yes", "label_off": "no", "lazy": True}]
    assert required["choice"] == ["COMBO", {"multiselect": False, "options": ["a", "b"], "image_upload": True, "image_folder": "output"}]
    many = {"default": ["a"], "multiselect": True, "multi_select": True, "options": ["a", "b"], "placeholder": "pick", "chip": True}
    assert required["some"] == ["COMBO", many]
    assert required["mixed"] == ["FLOAT,INT,MASK", {"default": 1.0}]
    assert required["mine"] == ["MY_TYPE", {"display_name": "Mine"}]
    assert info["input"]["hidden"] == {"unique_id": ["UNIQUE_ID"], "prompt": ["PROMPT"], "extra_pnginfo": ["EXTRA_PNGINFO"]}
    assert info["input_order"]["optional"] == ["switch", "anything"]
    assert info["output"] == ["IMAGE", "INT", ["x", "y"]]
    assert info["output_name"] == ["picture", "INT", "COMBO"]
    assert info["output_is_list"] == [False, True, False]
    assert info["output_tooltips"] == ["A picture.", None, None]
    assert (info["display_name"], info["deprecated"], info["experimental"], info["api_node"]) == ("All of it", True, False, False)


def test_v1_names_are_derived_on_the_class() -> None:
    assert Everything.RETURN_TYPES == ("IMAGE", "INT", ["x", "y"])
    assert Everything.OUTPUT_IS_LIST == (False, True, False)
    assert Everything.OUTPUT_NODE is True
    assert Everything.INPUT_IS_LIST is False
    assert Everything.CATEGORY == "tests"
    assert Everything.FUNCTION == "EXECUTE_NORMALIZED"
    declared, schema = Everything.INPUT_TYPES(include_hidden=False, return_schema=True)
    assert "hidden" not in declared
    assert [output.id for output in schema.outputs] == ["_0_IMAGE_", "numbers", "_2_COMBO_"]


def test_the_v3_form_lists_inputs_and_outputs() -> None:
    info = Everything.GET_NODE_INFO_V3()
    assert info["hidden"] == ["UNIQUE_ID", "PROMPT", "EXTRA_PNGINFO"]
    assert info["output"][0] == {
        "id": "_0_IMAGE_",
        "type": "IMAGE",
        "display_name": "picture",
        "tooltip": "A picture.",
        "is_output_list": False,
    }


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([io.Int.Input("a"), io.Int.Input("a")], []),
        ([], [io.Int.Output("b"), io.Int.Output("b")]),
        ([io.Int.Input("a")], [io.Int.Output("a")]),
        ([io.Int.Input("")], []),
    ],
)
def test_ids_are_unique_and_not_empty(inputs: list[Any], outputs: list[Any]) -> None:
    with pytest.raises(ValueError):
        io.Schema(node_id="n", inputs=inputs, outputs=outputs).validate()


def test_the_clone_has_the_hidden_values_and_cannot_be_changed() -> None:
    clone = Everything.PREPARE_CLASS_CLONE({"unique_id": "7", "prompt": {"7": {}}})
    assert (clone.hidden.unique_id, clone.hidden.prompt, clone.hidden.anything_else) == ("7", {"7": {}}, None)
    with pytest.raises(AttributeError):
        clone.counter = 1  # type: ignore[attr-defined]
    assert Everything.hidden.unique_id is None
    assert clone.EXECUTE_NORMALIZED().args == (1, 2, 3)


class ExecutionBlocker:
    """The executor's class has this name and this attribute."""

    def __init__(self, message: str | None) -> None:
        self.message = message


@pytest.mark.parametrize(
    ("returned", "args"),
    [
        (None, ()),
        ((1, 2), (1, 2)),
        ({"result": (1, 2), "ui": {"text": ["x"]}}, (1, 2)),
        ({"ui": {"text": ["x"]}}, ()),
        (io.NodeOutput(5), (5,)),
    ],
)
def test_what_execute_returns_is_brought_into_one_form(returned: Any, args: tuple[Any, ...]) -> None:
    output = returning(returned).EXECUTE_NORMALIZED()
    assert output.args == args
    assert output.result == (args or None)


@pytest.mark.parametrize("message", [None, "stop"])
def test_a_blocker_fills_every_slot(message: str | None) -> None:
    blocker = ExecutionBlocker(message)
    assert returning(blocker).EXECUTE_NORMALIZED().args == (blocker, blocker)
    assert returning({"result": blocker}).EXECUTE_NORMALIZED().args == (blocker, blocker)


@pytest.mark.parametrize("returned", ["text", 5, [1, 2], io.NodeOutput(expand={"1": {}})])
def test_anything_else_and_an_unannounced_expansion_are_refused(returned: Any) -> None:
    with pytest.raises(NodeOutputInvalid):
        returning(returned).EXECUTE_NORMALIZED()


def test_an_announced_expansion_passes() -> None:
    output = returning(io.NodeOutput(["1", 0], expand={"1": {}}), enable_expand=True).EXECUTE_NORMALIZED()
    assert output.expand == {"1": {}}
    assert output[0] == ["1", 0]


def test_a_coroutine_function_runs_asynchronously() -> None:
    class Slow(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Slow", outputs=[io.Int.Output()])

        @classmethod
        async def execute(cls, value: int) -> io.NodeOutput:
            return io.NodeOutput(value + 1)

    assert Slow.FUNCTION == "EXECUTE_NORMALIZED_ASYNC"
    assert asyncio.run(Slow.EXECUTE_NORMALIZED_ASYNC(value=1)).args == (2,)


@pytest.mark.parametrize("missing", ["define_schema", "execute"])
def test_a_class_that_lacks_a_method_is_named(missing: str) -> None:
    members = {
        "define_schema": classmethod(lambda cls: io.Schema(node_id="Half")),
        "execute": classmethod(lambda cls: None),
    }
    del members[missing]
    half = type("Half", (io.ComfyNode,), members)
    with pytest.raises(NodeOutputInvalid, match=missing):
        half.VALIDATE_CLASS()
    Everything.VALIDATE_CLASS()


def test_combos_take_an_enum_class() -> None:
    class Size(enum.Enum):
        SMALL = "small"
        LARGE = "large"

    options = io.Combo.Input("size", options=Size, default=Size.LARGE).as_dict()
    assert options == {"default": "large", "multiselect": False, "options": ["small", "large"]}


def test_a_remote_combo_sends_its_route() -> None:
    remote = io.RemoteOptions(route="/r", refresh_button=True)
    assert io.Combo.Input("x", remote=remote).as_dict()["remote"] == {
        "route": "/r",
        "refresh_button": True,
        "control_after_refresh": "first",
    }


def test_autogrow_repeats_its_template() -> None:
    grow = io.AutogrowDynamic.Input("images", template_input=io.Image.Input("image"), min=1, max=3)
    schema = io.Schema(node_id="g", inputs=[grow])
    declared = schema.input_types()
    assert list(declared["required"]) == ["image1"]
    assert list(declared["optional"]) == ["image2", "image3"]


def test_matched_and_dynamic_types_are_declared() -> None:
    template = io.MatchType.Template("t", [io.Image, io.Mask])
    schema = io.Schema(
        node_id="m",
        inputs=[
            io.MatchType.Input("a", template=template),
            io.ComboDynamic.Input("how", options=[io.ComboDynamic.Option("one", [io.Int.Input("x")]), io.ComboDynamic.Option("none", [])]),
        ],
        outputs=[io.MatchType.Output(template)],
    )
    schema.finalize()
    declared = schema.input_types()
    assert declared["required"]["a"][0] == "IMAGE,MASK"
    assert declared["required"]["how"][1]["options"] == ["one", "none"]
    assert list(declared["optional"]) == ["x"]
    assert schema.outputs[0].io_type == "IMAGE,MASK"


@pytest.mark.parametrize(
    ("left", "right", "differs"),
    [
        ("IMAGE", "IMAGE", False),
        ("IMAGE", "MASK", True),
        ("IMAGE", "*", False),
        ("*", "MASK", False),
        ("FLOAT,INT", "INT", False),
        ("INT", "FLOAT, INT", False),
        ("FLOAT,INT", "INT,MASK", True),
    ],
)
def test_type_names_compare_permissively_by_inequality_alone(left: str, right: str, differs: bool) -> None:
    assert (IoType(left) != right) is differs
    assert (IoType(left) == right) is (left == right)
    assert pickle.loads(pickle.dumps(IoType(left))) == left
    assert {IoType(left): 1}[left] == 1
    assert IoType(left) != 5


def test_wire_names_of_data_types() -> None:
    names = {
        "Clip": "CLIP",
        "ControlNet": "CONTROL_NET",
        "Load3D": "LOAD_3D",
        "Load3DCamera": "LOAD3D_CAMERA",
        "MODEL_PATCH": "MODEL_PATCH",
    }
    assert {name: getattr(io, name).io_type for name in names} == names
    with pytest.raises(AttributeError):
        io.NoSuchType  # noqa: B018


def test_an_extension_lists_its_nodes() -> None:
    class Pack(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return [Everything]

    assert asyncio.run(Pack().get_node_list()) == [Everything]
    with pytest.raises(TypeError):
        ComfyExtension()  # type: ignore[abstract]


@pytest.mark.parametrize("version", ["latest", "v0_0_1", "v0_0_2"])
def test_every_version_exports_the_same_names(version: str) -> None:
    module = __import__(f"comfy_api.{version}", fromlist=["io"])
    for name in ("ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "io", "ui", "comfy_io"):
        assert hasattr(module, name), name


def test_names_of_types_for_old_nodes_compare_permissively() -> None:
    from comfy.comfy_types import IO, CheckLazyMixin

    pairs = [(IO.ANY, "MASK"), ("MASK", IO.ANY), (IO.NUMBER, "INT"), (IO.IMAGE, "MASK")]
    assert [operator.ne(left, right) for left, right in pairs] == [False, False, False, True]
    assert IO.IMAGE == "IMAGE"
    assert json.dumps([IO.IMAGE, f"{IO.IMAGE}"]) == '["IMAGE", "IMAGE"]'
    assert CheckLazyMixin().check_lazy_status(a=None, b=1) == ["a"]
