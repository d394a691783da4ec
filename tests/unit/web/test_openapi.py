from __future__ import annotations

import re

from aiohttp import web

from comfy.config import Config
from comfy.nodes.registry import NodeRegistry
from comfy.web import openapi
from server import PromptServer


def app() -> web.Application:
    server = PromptServer(Config(), NodeRegistry())

    @server.routes.put("/pack/{name}/{rest:.*}")
    async def of_a_pack(request: web.Request) -> web.Response:
        return web.Response()

    server.add_routes()
    return server.app


def test_the_table_and_the_routes_agree() -> None:
    assert set(openapi.TABLE) == set(openapi.listed_routes(app())) - {("PUT", "/pack/{name}/{rest}")}


def test_every_operation_names_its_path_parameters_and_has_an_id_of_its_own() -> None:
    document = openapi.document(app())
    assert document["openapi"] == "3.1.0"
    operations = [(path, told) for path, methods in document["paths"].items() for told in methods.values()]
    assert len({told["operationId"] for _, told in operations}) == len(operations) == len(openapi.TABLE) + 1
    for path, told in operations:
        named = [parameter["name"] for parameter in told.get("parameters", []) if parameter["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)
    prompt = document["paths"]["/prompt"]["post"]
    assert [parameter["name"] for parameter in prompt["parameters"]] == ["X-TARGET-GPU"]
    assert prompt["requestBody"]["content"]["application/json"]["schema"]["anyOf"][0]["required"] == ["prompt"]
