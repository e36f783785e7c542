"""The line from a Jupyter server to the browser, without its pauses; `svetlana-jupyter lab` puts it to use.

Jupyter leaves TCP to gather small messages: each waits until the one before is confirmed, which a system may put off
for 40 ms. A key that is answered in 30 ms then takes 70.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Sends every message of a kernel at once."""

    def connect(self) -> Any:
        self.websocket_handler.set_nodelay(True)
        return super().connect()
