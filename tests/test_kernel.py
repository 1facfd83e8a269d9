"""The channel to a kernel: no reply is left lying."""

import asyncio

import nbformat
import zmq
import zmq.asyncio
from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_notebook

from t2ikit import execution, kernel


def test_a_reply_that_came_just_before_a_message_was_sent_is_seen():
    """Sending takes the wake-up that told of the reply, on a socket that somebody waits at: a cell with widgets, whose
    outputs the client sends back while it waits for the cell's end, then never ended."""

    async def talk() -> dict:
        context = zmq.asyncio.Context()
        session = Session(key=b"")
        with zmq.Context.shadow(context.underlying).socket(zmq.DEALER) as peer, context.socket(zmq.DEALER) as socket:
            peer.bind("inproc://kernel")
            socket.connect("inproc://kernel")
            channel = kernel.Channel(socket, session)
            reply = asyncio.ensure_future(channel.get_msg())
            await asyncio.sleep(0.1)  # now it waits
            session.send(peer, "execute_reply")
            channel.send(session.msg("comm_msg"))  # before the loop is asked for events
            return await asyncio.wait_for(reply, 10)

    assert asyncio.run(talk())["msg_type"] == "execute_reply"


def test_notebooks_are_executed_over_such_a_channel(tmp_path, monkeypatch):
    sent = []
    real = kernel.Channel.send
    monkeypatch.setattr(kernel.Channel, "send", lambda self, msg: (sent.append(msg["msg_type"]), real(self, msg)))
    notebook = new_notebook(cells=[new_code_cell("import ipywidgets\nwith ipywidgets.Output(): print(1)")])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    execution.execute(tmp_path / "n.ipynb", {}, tmp_path / "o.ipynb")
    assert {"execute_request", "comm_msg"} <= set(sent)
