"""Kernel websocket that sends small messages without delay.

``svetlana-jupyter lab`` uses this connection.

Jupyter does not set TCP_NODELAY, so a small message waits until the previous one is acknowledged, which may take 40 ms
(Nagle's algorithm with delayed acknowledgments). A key press that the kernel answers in 30 ms would then take 70 ms.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Kernel connection with TCP_NODELAY set."""

    def connect(self) -> Any:
        """Connect to the kernel and disable Nagle's algorithm on the websocket."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
