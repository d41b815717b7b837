"""A worker process of a runner: Beam's own, in this environment, without its running commentary.

A runner starts `corpusmill-worker` with the address of its services (Beam's PROCESS environment).
It ends when the process that started it does. What goes wrong in a worker reaches the launching
process with the error.

With `--pool [HOST:]PORT` it is a pool, beside each executor, that starts workers when it is asked
to (Beam's EXTERNAL environment). Whoever reaches a pool runs what they like in its workers, so it
listens to its own machine unless told a host.
"""

import argparse
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

_SECONDS_BETWEEN = 0.5
_HARNESS = "apache_beam.runners.worker.sdk_worker_main"


def main(argv: Sequence[str] | None = None) -> None:
    """`corpusmill-worker`; `--id` and `--provision_endpoint` are Beam's contract with it."""
    parser = argparse.ArgumentParser(prog="corpusmill-worker", description=__doc__)
    parser.add_argument(
        "--pool", type=_address, metavar="[HOST:]PORT", help="serve workers there; localhost's port"
    )
    parser.add_argument("--id", help="a worker's, from its runner")
    parser.add_argument("--provision_endpoint", help="of its runner, which says the rest there")
    arguments, _ = parser.parse_known_args(argv)
    if arguments.pool is not None:
        if error := _serve_pool(arguments.pool):
            parser.error(error)
    elif arguments.id is None or arguments.provision_endpoint is None:
        parser.error("a runner starts this program; --pool PORT serves workers")
    else:
        _work_watched(arguments.id, arguments.provision_endpoint)


def _address(text: str) -> str:
    """An address to listen at, of `[HOST:]PORT`."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]PORT, with a port of 1 to 65535")
    return f"{host or 'localhost'}:{port}"


def _work() -> None:
    """Works for the runner whose addresses are in the environment, until it has no more to do."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if "CORPUSMILL_LOG" not in os.environ:
        logging.disable(logging.ERROR)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the process' life)
    # Not an import, because Beam's commentary begins when it is imported.
    runpy.run_module(_HARNESS, run_name="__main__")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN)
    os._exit(1)


def _work_watched(worker: str, provision_endpoint: str) -> None:
    """Works in a process of its own, and ends a Spark executor whose worker was killed.

    Beam would keep the dead worker for its executor, which would fail whatever it is given; in the
    place of an executor Spark starts another one.
    """
    executor = os.getppid()
    working = os.fork()
    if not working:
        _ask_and_work(worker, provision_endpoint)
        return

    def stop(_number: int, _frame: object) -> NoReturn:
        os.kill(working, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_end_with, args=(executor,), daemon=True).start()
    _, status = os.waitpid(working, 0)
    if os.WIFSIGNALED(status) and _is_spark_executor(executor):
        os.kill(executor, signal.SIGTERM)
    sys.exit(os.waitstatus_to_exitcode(status))


def _is_spark_executor(process: int) -> bool:
    command = Path("/proc", str(process), "cmdline")
    return command.exists() and b"ExecutorBackend" in command.read_bytes()


def _ask_and_work(worker: str, provision_endpoint: str, ready: Connection | None = None) -> None:
    """Works for a runner that says what a worker wants to know, as it does to Beam's boot program.

    Args:
      worker: its id.
      provision_endpoint: where the runner says it.
      ready: what is told when nothing is missing any more.
    """
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2 as messages
    from apache_beam.portability.api import beam_provision_api_pb2_grpc as stubs
    from google.protobuf import json_format

    with grpc.insecure_channel(provision_endpoint) as channel:
        service = stubs.ProvisionServiceStub(channel)
        request = messages.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=[("worker_id", worker)]).info
    os.environ |= {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": str(info.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": str(info.logging_endpoint),
    }
    if ready is not None:
        ready.send(True)
    _work()


def _serve_pool(address: str) -> str | None:
    """Starts workers for the executors of this machine; returns what is wrong with the address.

    Unlike those of Beam's own pool its workers have Beam imported when they start; and it says so
    when one doesn't come up, where a runner would wait for good.
    """
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2 as messages
    from apache_beam.portability.api import beam_fn_api_pb2_grpc as stubs

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_HARNESS])

    class Pool(stubs.BeamFnExternalWorkerPoolServicer):
        def StartWorker(self, request, _context):  # noqa: N802
            ready, told = context.Pipe(duplex=False)
            arguments = (request.worker_id, request.provision_endpoint.url, told)
            worker = context.Process(target=_ask_and_work, args=arguments)
            worker.start()
            told.close()
            try:
                ready.recv()
            except EOFError:
                worker.join()
                error = f"the worker ended at once, with code {worker.exitcode}"
                return messages.StartWorkerResponse(error=error)
            return messages.StartWorkerResponse()

        def StopWorker(self, _request, _context):  # noqa: N802
            # A worker ends when its runner hangs up. By its id it can't be told from those of this
            # machine's other executors, which number theirs from 1, too.
            return messages.StopWorkerResponse()

    # Two pools at one port would each be asked now and then.
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    stubs.add_BeamFnExternalWorkerPoolServicer_to_server(Pool(), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        return f"cannot listen at {address}: no address of this machine, or in use"
    server.start()
    print(f"serving workers at {address}", flush=True)
    server.wait_for_termination()
    return None


if __name__ == "__main__":
    main()
