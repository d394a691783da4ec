import torch
from torch import nn

from comfy.device.runner import DenoiserRunner


class Network(nn.Module):
    """Gives back how it was called."""

    def forward(self, x, timesteps, context, **given):
        self.given = given
        return x * timesteps.view(-1, 1) + context.mean()


def test_the_runner_calls_the_network_and_counts():
    runner, network = DenoiserRunner(), Network()
    x, timesteps, context = torch.ones(2, 3), torch.tensor([1.0, 2.0]), torch.full((2, 4, 5), 0.5)
    out = runner.run(network, ("sd15", ()), x, timesteps, context)
    assert torch.equal(out, torch.tensor([[1.5] * 3, [2.5] * 3]))
    assert network.given == {"transformer_options": {}}
    assert runner.statistics().calls == 1


def test_what_is_given_reaches_the_network_and_its_options_are_its_own():
    runner, network, options = DenoiserRunner(), Network(), {"patches": {}}
    y, control, x = torch.ones(2, 8), {"output": []}, torch.ones(2, 3)
    runner.run(network, "key", x, torch.ones(2), torch.ones(2, 1, 1), y=y, control=control, options=options, extra={"guidance": 3.5})
    assert network.given["y"] is y
    assert network.given["control"] is control
    assert network.given["guidance"] == 3.5
    network.given["transformer_options"]["mark"] = 1
    assert options == {"patches": {}}
