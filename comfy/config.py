"""Command line and environment -> one frozen `Config`, plus the argparse namespace that custom nodes read.

Flags and defaults of the ecosystem are those of its command line; ours are in the group "Lanes". Each of ours is a flag
and a variable, and the flag wins. Nothing outside main.py and the edge reads the namespace: constructors are given Config.
"""

from __future__ import annotations

import argparse
import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfy.errors import ConfigError

VERSION = "0.3.64"  # of the ComfyUI contract that this server keeps; clients and packs compare it
PROGRAM_DIR = Path(__file__).resolve().parent.parent


class LatentPreviewMethod(enum.Enum):
    """How sampler previews are made."""

    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"


class PerformanceFeature(enum.Enum):
    """What `--fast` may trade exactness for."""

    Fp16Accumulation = "fp16_accumulation"
    Fp8MatrixMultiplication = "fp8_matrix_mult"
    CublasOps = "cublas_ops"
    AutoTune = "autotune"


@dataclass(frozen=True)
class Config:
    """What the server was told at its start. Sizes in bytes, times in seconds."""

    # network
    listen: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8188
    tls_keyfile: str | None = None
    tls_certfile: str | None = None
    cors_origin: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_upload_bytes: int = 100 * 1024**2
    compress_responses: bool = False
    multi_user: bool = False
    front_end_root: Path | None = None
    # folders
    base_dir: Path = PROGRAM_DIR
    output_dir: Path = PROGRAM_DIR / "output"
    input_dir: Path = PROGRAM_DIR / "input"
    temp_dir: Path = PROGRAM_DIR / "temp"
    user_dir: Path = PROGRAM_DIR / "user"
    extra_model_paths: tuple[Path, ...] = ()
    # lanes
    multi_gpu: bool = False
    num_gpus: int | None = None
    default_target: int | None = None
    auto_gpus: tuple[int, ...] | None = None
    max_queue: int = 10_000
    drain_s: float = 60.0
    stall_s: float = 600.0
    ram_cache_bytes: int | None = None
    cpu: bool = False
    cuda_graphs: bool = True
    # behaviour
    cache_policy: str = "classic"
    cache_lru: int = 0
    disable_metadata: bool = False
    preview_method: LatentPreviewMethod = LatentPreviewMethod.NoPreviews
    preview_size: int = 512
    hashing: str = "sha256"
    custom_nodes: bool = True
    custom_nodes_whitelist: tuple[str, ...] = ()
    exclusive_packs: tuple[str, ...] = ()
    quick_test: bool = False
    dont_print_server: bool = False
    auto_launch: bool = False
    log_level: str = "INFO"
    log_format: str = "text"
    log_stdout: bool = False
    argv: tuple[str, ...] = ()
    #: every flag as custom nodes know it: `comfy.cli_args.args`
    args: argparse.Namespace = field(default_factory=argparse.Namespace, compare=False, repr=False)


def _directory(text: str) -> str:
    if not os.path.isdir(text) or not os.access(text, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text} is not a readable directory")
    return text


def build_parser() -> argparse.ArgumentParser:
    """The parser of main.py; unknown flags and bad values end the start with usage and exit status 2."""
    parser = argparse.ArgumentParser(prog="main.py", description="One process, N GPUs, one copy of the weights.")
    add = parser.add_argument

    lanes = parser.add_argument_group("Lanes")
    lanes.add_argument("--multi-gpu-sched", metavar="1|0", help="a lane per GPU (COMFY_MULTI_GPU_SCHED; default 0)")
    lanes.add_argument("--num-gpus", metavar="N", help="lanes to start (COMFY_NUM_GPUS; default: all visible GPUs, 2 on a CPU)")
    lanes.add_argument(
        "--default-target-gpu", metavar="I|auto", help="lane of prompts without X-TARGET-GPU (COMFY_DEFAULT_TARGET_GPU; default auto)"
    )
    lanes.add_argument("--auto-gpus", metavar="I,J", help="lanes that the router may choose (COMFY_AUTO_GPUS; default all)")
    lanes.add_argument("--max-queue", metavar="N", help="jobs that may wait on one lane (COMFY_MAX_QUEUE; default 10000)")
    lanes.add_argument("--drain-s", metavar="S", help="seconds that running jobs get to finish on SIGTERM (COMFY_DRAIN_S; default 60)")
    lanes.add_argument(
        "--stall-s", metavar="S", help="seconds without progress after which a lane counts as stalled (COMFY_STALL_S; default 600)"
    )
    lanes.add_argument("--log-format", metavar="text|json", help="how log lines are written (COMFY_LOG_FORMAT; default text)")
    lanes.add_argument(
        "--ram-cache-gib", metavar="N", help="host RAM for weights (COMFY_RAM_CACHE_GIB; default 70%% of RAM; 0 keeps nothing)"
    )
    lanes.add_argument(
        "--exclusive-packs", metavar="NAMES", help="packs whose prompts run alone, comma separated (COMFY_EXCLUSIVE_PACKS; see docs)"
    )
    lanes.add_argument(
        "--disable-cuda-graphs", action="store_const", const="1", help="launch every kernel from Python (COMFY_DISABLE_CUDA_GRAPHS=1)"
    )
    lanes.add_argument("--allowed-hosts", metavar="NAMES", help="Host names to answer to, comma separated, * for any (COMFY_ALLOWED_HOSTS)")

    add("--listen", nargs="?", const="0.0.0.0,::", default="127.0.0.1", metavar="IP", help="addresses to bind, comma separated")
    add("--port", type=int, default=8188)
    add("--tls-keyfile")
    add("--tls-certfile")
    add("--enable-cors-header", nargs="?", const="*", default=None, metavar="ORIGIN")
    add("--max-upload-size", type=float, default=100, metavar="MB")
    add("--enable-compress-response-body", action="store_true")
    add("--base-directory")
    add("--output-directory")
    add("--input-directory")
    add("--temp-directory")
    add("--user-directory", type=_directory)
    add("--extra-model-paths-config", nargs="+", action="append", metavar="FILE")
    add("--database-url", default=None)
    add("--front-end-version", default="comfyanonymous/ComfyUI@latest")
    add("--front-end-root", type=_directory)
    add("--multi-user", action="store_true")
    add("--comfy-api-base", default="https://api.comfy.org")

    add("--auto-launch", action="store_true")
    add("--disable-auto-launch", action="store_true")
    add("--disable-metadata", action="store_true")
    add("--disable-all-custom-nodes", action="store_true")
    add("--whitelist-custom-nodes", nargs="+", default=[], metavar="NAME")
    add("--disable-api-nodes", action="store_true")
    add("--preview-method", type=LatentPreviewMethod, default=LatentPreviewMethod.NoPreviews, metavar="none|auto|latent2rgb|taesd")
    add("--preview-size", type=int, default=512)
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-classic", action="store_true")
    cache.add_argument("--cache-lru", type=int, default=0, metavar="N")
    cache.add_argument("--cache-none", action="store_true")
    add("--default-hashing-function", choices=("md5", "sha1", "sha256", "sha512"), default="sha256")
    add("--verbose", nargs="?", const="DEBUG", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    add("--log-stdout", action="store_true")
    add("--dont-print-server", action="store_true")
    add("--quick-test-for-ci", action="store_true")
    add("--windows-standalone-build", action="store_true")

    add("--cuda-device", type=int, metavar="I")
    add("--default-device", type=int, metavar="I")
    malloc = parser.add_mutually_exclusive_group()
    malloc.add_argument("--cuda-malloc", action="store_true")
    malloc.add_argument("--disable-cuda-malloc", action="store_true")
    add("--directml", type=int, nargs="?", const=-1, metavar="ID")
    add("--oneapi-device-selector")
    add("--disable-ipex-optimize", action="store_true")
    add("--supports-fp8-compute", action="store_true")
    memory = parser.add_mutually_exclusive_group()
    for flag in ("gpu-only", "highvram", "normalvram", "lowvram", "novram", "cpu"):
        memory.add_argument(f"--{flag}", action="store_true")
    add("--reserve-vram", type=float, default=None, metavar="GB")
    for flag in (
        "async-offload",
        "force-non-blocking",
        "disable-smart-memory",
        "deterministic",
        "mmap-torch-files",
        "disable-mmap",
        "force-channels-last",
    ):
        add(f"--{flag}", action="store_true")
    add("--fast", nargs="*", type=PerformanceFeature, default=None, metavar="FEATURE")
    _exclusive(parser, "force-fp32", "force-fp16")
    _exclusive(parser, "fp32-unet", "fp64-unet", "bf16-unet", "fp16-unet", "fp8_e4m3fn-unet", "fp8_e5m2-unet", "fp8_e8m0fnu-unet")
    _exclusive(parser, "fp16-vae", "fp32-vae", "bf16-vae")
    add("--cpu-vae", action="store_true")
    _exclusive(parser, "fp8_e4m3fn-text-enc", "fp8_e5m2-text-enc", "fp16-text-enc", "fp32-text-enc", "bf16-text-enc")
    _exclusive(
        parser,
        *(
            f"use-{kind}"
            for kind in ("split-cross-attention", "quad-cross-attention", "pytorch-cross-attention", "sage-attention", "flash-attention")
        ),
    )
    add("--disable-xformers", action="store_true")
    _exclusive(parser, "force-upcast-attention", "dont-upcast-attention")
    return parser


def _exclusive(parser: argparse.ArgumentParser, *flags: str) -> None:
    group = parser.add_mutually_exclusive_group()
    for flag in flags:
        group.add_argument(f"--{flag}", action="store_true")


def load(argv: Sequence[str] = (), env: Mapping[str, str] | None = None, argv0: str = "main.py") -> Config:
    """Flags and variables -> Config. Raises ConfigError for a bad variable or lane setting; SystemExit(2) for bad flags."""
    args = build_parser().parse_args(list(argv))
    env = os.environ if env is None else env

    def setting(flag: str, variable: str) -> tuple[str | None, str]:
        given = getattr(args, flag)
        return (given, "--" + flag.replace("_", "-")) if given is not None else (env.get(variable) or None, variable)

    base = Path(args.base_directory or PROGRAM_DIR).resolve()
    temp_parent = Path(args.temp_directory).resolve() if args.temp_directory else base
    ram_gib = _number(*setting("ram_cache_gib", "COMFY_RAM_CACHE_GIB"))
    default_target, where = setting("default_target_gpu", "COMFY_DEFAULT_TARGET_GPU")
    drain = _number(*setting("drain_s", "COMFY_DRAIN_S"))
    stall = _number(*setting("stall_s", "COMFY_STALL_S"))
    max_queue = _whole(*setting("max_queue", "COMFY_MAX_QUEUE"), least=1)
    hosts, _ = setting("allowed_hosts", "COMFY_ALLOWED_HOSTS")
    exclusive, _ = setting("exclusive_packs", "COMFY_EXCLUSIVE_PACKS")
    auto, auto_where = setting("auto_gpus", "COMFY_AUTO_GPUS")
    if args.port < 0 or args.port > 65535:
        raise ConfigError("--port must lie between 0 and 65535.", port=args.port)
    return Config(
        listen=tuple(part.strip() for part in args.listen.split(",") if part.strip()),
        port=args.port,
        tls_keyfile=args.tls_keyfile,
        tls_certfile=args.tls_certfile,
        cors_origin=args.enable_cors_header,
        allowed_hosts=tuple(part.strip() for part in (hosts or "").split(",") if part.strip()),
        max_upload_bytes=round(args.max_upload_size * 1024**2),
        compress_responses=args.enable_compress_response_body,
        multi_user=args.multi_user,
        front_end_root=Path(args.front_end_root).resolve() if args.front_end_root else None,
        base_dir=base,
        output_dir=Path(args.output_directory).resolve() if args.output_directory else base / "output",
        input_dir=Path(args.input_directory).resolve() if args.input_directory else base / "input",
        temp_dir=temp_parent / "temp",
        user_dir=Path(args.user_directory).resolve() if args.user_directory else base / "user",
        extra_model_paths=tuple(Path(path) for group in args.extra_model_paths_config or () for path in group),
        multi_gpu=_switch(*setting("multi_gpu_sched", "COMFY_MULTI_GPU_SCHED")),
        num_gpus=_whole(*setting("num_gpus", "COMFY_NUM_GPUS"), least=1),
        default_target=None if default_target in (None, "auto") else _whole(default_target, where, least=0),
        auto_gpus=None if auto is None else tuple(_whole(part.strip(), auto_where, least=0) or 0 for part in auto.split(",")),
        max_queue=10_000 if max_queue is None else max_queue,
        drain_s=60.0 if drain is None else drain,
        stall_s=600.0 if stall is None else stall,
        ram_cache_bytes=None if ram_gib is None else int(ram_gib * 1024**3),
        cpu=args.cpu,
        cuda_graphs=not _switch(*setting("disable_cuda_graphs", "COMFY_DISABLE_CUDA_GRAPHS")),
        cache_policy="none" if args.cache_none else "lru" if args.cache_lru > 0 else "classic",
        cache_lru=max(args.cache_lru, 0),
        disable_metadata=args.disable_metadata,
        preview_method=args.preview_method,
        preview_size=args.preview_size,
        hashing=args.default_hashing_function,
        custom_nodes=not args.disable_all_custom_nodes,
        custom_nodes_whitelist=tuple(args.whitelist_custom_nodes),
        exclusive_packs=tuple(part.strip() for part in (exclusive or "").split(",") if part.strip()),
        quick_test=args.quick_test_for_ci,
        dont_print_server=args.dont_print_server,
        auto_launch=(args.auto_launch or args.windows_standalone_build) and not args.disable_auto_launch,
        log_level=args.verbose,
        log_format=_one_of(("text", "json"), *setting("log_format", "COMFY_LOG_FORMAT")),
        log_stdout=args.log_stdout,
        argv=(argv0, *argv),
        args=args,
    )


def _switch(text: str | None, where: str) -> bool:
    if text is None or text.strip().lower() in ("0", "false", "off"):
        return False
    if text.strip().lower() in ("1", "true", "on"):
        return True
    raise ConfigError(f"{where} must be 1, true or on, or 0, false or off.", value=text)


def _one_of(choices: tuple[str, ...], text: str | None, where: str) -> str:
    """The first choice when nothing is given."""
    if text is None or text in choices:
        return text or choices[0]
    raise ConfigError(f"{where} must be {' or '.join(choices)}.", value=text)


def _whole(text: str | None, where: str, least: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ConfigError(f"{where} must be a whole number, {least} or more.", value=text)
    return int(text)


def _number(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{where} must be a number, 0 or more.", value=text)
    return value
