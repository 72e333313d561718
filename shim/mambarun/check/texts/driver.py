# SPDX-License-Identifier: Apache-2.0
"""driver.py - the texts of MR101 to MR121, also of those that only error messages name.
Data only.
"""

from .form import Case, Text

LOOK = "nvidia-smi"
CONTAINER = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ..."

HEADLINES = {
    "driver": {
        "works": (
            "{release}, CUDA driver API {api} (no CUDA toolkit or cuDNN needed)",
            "{release}，CUDA 驱动 API {api}（不需要安装 CUDA 工具包和 cuDNN）",
        ),
        "api": (
            "CUDA driver API {api} (no CUDA toolkit or cuDNN needed)",
            "CUDA 驱动 API {api}（不需要安装 CUDA 工具包和 cuDNN）",
        ),
        "none": ("no usable NVIDIA driver", "没有可用的 NVIDIA 驱动"),
        "unknown": ("not asked", "未能检查"),
    },
    "gpu": {
        "one": (
            "{name}, compute capability {capability}: {variant}",
            "{name}，计算能力 {capability}：{variant}",
        ),
        "more": (
            "{count} visible; the first: {name}, compute capability {capability}: "
            "{variant}",
            "可见 {count} 块；第一块：{name}，计算能力 {capability}：{variant}",
        ),
        "no_variant": (
            "{name}, compute capability {capability}: no variant runs there",
            "{name}，计算能力 {capability}：没有能用的变体",
        ),
        "none": ("none that can be used", "没有可用的 GPU"),
    },
}

TEXTS = {
    "MR101": Text(
        "driver",
        ("an NVIDIA driver is installed", "已安装 NVIDIA 驱动"),
        {
            "here": Case(
                (
                    "driver {release} is installed; there is no need to install it "
                    "again",
                    "已安装驱动 {release}，不必重装",
                )
            ),
            "hidden": Case(
                (
                    "the driver works (API {api}) and does not show its release here",
                    "驱动可用（API {api}），但这里看不到它的版本号",
                )
            ),
            "none": Case(
                (
                    "no NVIDIA driver: tensors on the CPU work, a GPU does not",
                    "没有 NVIDIA 驱动：CPU 张量可用，GPU 不可用",
                ),
                (
                    "nothing, if this machine has no NVIDIA GPU",
                    "本机没有 NVIDIA GPU 的话，不用处理",
                ),
            ),
        },
        (
            """\
The NVIDIA driver is the one thing that a GPU needs and that no wheel brings.

It has a part in the kernel and a library, libcuda.so.1. `nvidia-smi` shows its release,
such as 535.104.12. The "CUDA Version" in its first line is the newest CUDA that this
driver can run, not a CUDA that is installed. A toolkit (nvcc, /usr/local/cuda) is for
those who compile; running a toolkit's installer to get a driver that is already there
ends in "Install of driver component failed", and is not needed.

What to do

- On a server: ask whoever runs it. In a container: start it with --gpus all.
- Without a GPU nothing is wrong: mambarun runs on the CPU.""",
            """\
使用 GPU 唯一需要、而安装包又带不了的，就是 NVIDIA 驱动。

它由内核部分和动态库 libcuda.so.1 组成，`nvidia-smi` 会显示版本号，例如 535.104.12。第一
行里的 “CUDA Version” 是这个驱动最高能运行的 CUDA 版本，不代表已经安装了 CUDA。工具包
（nvcc、/usr/local/cuda）只有编译时才用得到；驱动已经装好，还用工具包的安装程序再装一
遍，就会出现 “Install of driver component failed”，其实根本不需要。

怎么办

- 服务器上请联系管理员；容器要加 --gpus all 启动。
- 没有 GPU 也不算错误：mambarun 可以在 CPU 上运行。""",
        ),
    ),
    "MR102": Text(
        "driver",
        (
            "the driver's library opens and is new enough",
            "驱动的动态库能打开且版本够新",
        ),
        {
            "here": Case(
                (
                    "driver {release}, CUDA driver API {api}; no toolkit is needed",
                    "驱动 {release}，CUDA 驱动 API {api}；不需要工具包",
                )
            ),
            "old": Case(
                (
                    "the driver's API is {api}: every GPU variant needs at least 11.0, "
                    "which is driver {least}. No toolkit helps here",
                    "驱动的 API 版本是 {api}：所有 GPU 变体至少要求 11.0，"
                    "即驱动 {least}。装工具包没有用",
                ),
                ("update the NVIDIA driver", "请升级 NVIDIA 驱动"),
            ),
            "unfit": Case(
                (
                    "libcuda.so.1 opens and cannot be used",
                    "libcuda.so.1 能打开，但无法使用",
                ),
                LOOK,
            ),
            "elsewhere": Case(
                (
                    "the driver's library lies in {path}, where no loader looks",
                    "驱动的动态库在 {path}，但加载器不会去那里找",
                ),
                "export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH",
            ),
            "broken_link": Case(
                (
                    "{path} is a link that leads nowhere: the driver was updated or "
                    "half removed",
                    "{path} 是失效的链接：驱动升级过，或者没有卸载干净",
                ),
                (
                    "reinstall the NVIDIA driver, or restart the container",
                    "请重装 NVIDIA 驱动，或重启容器",
                ),
            ),
            "container": Case(
                (
                    "the host has a driver, its library is not in this container",
                    "宿主机有驱动，但驱动的动态库没有进到这个容器里",
                ),
                CONTAINER,
            ),
            "missing": Case(
                (
                    "the kernel has a driver, and libcuda.so.1 is not there",
                    "内核里有驱动，却没有 libcuda.so.1",
                ),
                (
                    "install the driver's library package (Debian: libcuda1)",
                    "请安装驱动的动态库包（Debian 为 libcuda1）",
                ),
            ),
            "none": Case(("there is no driver", "没有驱动")),
            "unknown": Case(
                (
                    "not known: the process that asks the driver ended first",
                    "未知：询问驱动的进程提前结束了",
                )
            ),
        },
        (
            """\
There is no usable NVIDIA driver library.

CUDA tensors need libcuda.so.1, which comes with the driver (not with a toolkit, and not
with torch). It was not found, or it is too old to have a function that is needed. It is
looked for as every program does: by the loader, then in /usr/lib/wsl/lib. The file
libcuda.so without a number is not it.

Which driver is new enough: 450 for the cuda11 variants, 525 for cuda12, 580 for cuda13.

What to do

- `nvidia-smi` shows whether a driver is installed, and its version.
- In a container: start it with --gpus all and
NVIDIA_DRIVER_CAPABILITIES=compute,utility.
- A CUDA toolkit is not needed. Tensors on the CPU need no driver.""",
            """\
没有可用的 NVIDIA 驱动动态库。

CUDA 张量需要 libcuda.so.1，它随驱动安装（不随工具包，也不随 torch）。现在要么找不到它，
要么它太旧，缺少所需的函数。查找方式与其他程序相同：先由加载器查找，再看
/usr/lib/wsl/lib。不带数字的 libcuda.so 不是它。

驱动版本要求：cuda11 变体 450 以上，cuda12 变体 525 以上，cuda13 变体 580 以上。

怎么办

- 用 `nvidia-smi` 查看是否装了驱动以及版本。
- 容器要加 --gpus all，并设置 NVIDIA_DRIVER_CAPABILITIES=compute,utility。
- 不需要 CUDA 工具包。CPU 张量不需要驱动。""",
        ),
    ),
    "MR103": Text(
        "driver",
        ("the container was given compute as well", "容器具有 compute 能力"),
        {
            "compute": Case(
                (
                    "the driver {release} answers, and its library for computing is "
                    "missing: the container was started without `compute`",
                    "驱动 {release} 有响应，但缺少计算用的动态库："
                    "容器启动时没有 `compute` 能力",
                ),
                CONTAINER,
            )
        },
        (
            """\
nvidia-smi works, CUDA does not: the container has only half of the driver.

libnvidia-ml.so.1 (`utility`) was handed into the container, libcuda.so.1 (`compute`)
was not.

What to do

- Start it with --gpus all and NVIDIA_DRIVER_CAPABILITIES=compute,utility, or write that
variable into the image.""",
            """\
nvidia-smi 正常而 CUDA 不能用：容器里只有半个驱动。

libnvidia-ml.so.1（`utility`）传进了容器，libcuda.so.1（`compute`）没有。

怎么办

- 启动容器时加 --gpus all，并设置 NVIDIA_DRIVER_CAPABILITIES=compute,utility；也可以把这
个变量写进镜像。""",
        ),
    ),
    "MR104": Text(
        "driver",
        ("libcuda.so without a number, for triton", "triton 需要的 libcuda.so"),
        {
            "here": Case(
                (
                    "libcuda.so lies beside libcuda.so.1",
                    "libcuda.so.1 旁边有 libcuda.so",
                )
            ),
            "missing": Case(
                (
                    "there is no libcuda.so beside libcuda.so.1: mambarun does not "
                    "need it, triton may",
                    "libcuda.so.1 旁边没有 libcuda.so：mambarun 用不到它，"
                    "triton 可能要用",
                ),
                "export TRITON_LIBCUDA_PATH={folder}",
            ),
            "none": Case(("there is no driver", "没有驱动")),
        },
        (
            """\
Triton links what it compiles against libcuda.so, a name that some systems lack.

Then it says "libcuda.so cannot found!" or "cannot find -lcuda". mambarun opens
libcuda.so.1 and compiles nothing, so it is not concerned.

What to do

- export TRITON_LIBCUDA_PATH=FOLDER, the folder of libcuda.so.1.""",
            """\
triton 编译时要链接 libcuda.so，而有些系统没有这个名字的文件。

这时它会报 “libcuda.so cannot found!” 或 “cannot find -lcuda”。mambarun 打开的是
libcuda.so.1，也不编译任何东西，不受影响。

怎么办

- export TRITON_LIBCUDA_PATH=目录，即 libcuda.so.1 所在的目录。""",
        ),
    ),
    "MR105": Text(
        "driver",
        ("libcuda.so.1 is the driver's", "libcuda.so.1 来自驱动"),
        {
            "answer": Case(
                (
                    "{path} is the toolkit's stub, which exists for linking only",
                    "{path} 是工具包里的桩库（stub），只供链接使用",
                ),
                (
                    "remove the folder with `stubs` from LD_LIBRARY_PATH",
                    "请从 LD_LIBRARY_PATH 里去掉带 `stubs` 的目录",
                ),
            )
        },
        (
            """\
The libcuda.so.1 that was found is the toolkit's stub.

Stubs exist for linking only; they cannot run anything. Usually LD_LIBRARY_PATH names a
folder whose path contains `stubs`.

What to do

- Remove that folder from LD_LIBRARY_PATH.""",
            """\
找到的 libcuda.so.1 是工具包里的桩库（stub）。

桩库只供链接使用，什么也运行不了。通常是 LD_LIBRARY_PATH 里写了路径带 `stubs` 的目录。

怎么办

- 从 LD_LIBRARY_PATH 里去掉那个目录。""",
        ),
    ),
    "MR106": Text(
        "driver",
        (
            "the driver's library and the kernel's driver fit",
            "驱动的动态库与内核驱动匹配",
        ),
        {
            "reboot": Case(
                (
                    "{path} and the kernel's driver {release} are of different "
                    "releases: the driver was updated and the old one still runs",
                    "{path} 与内核里的驱动 {release} 版本不一致：驱动升级了，"
                    "旧的还在运行",
                ),
                "sudo reboot",
            ),
            "answer": Case(
                (
                    "{path} belongs to a `compat` package, which does not suit this "
                    "GPU or driver {release}",
                    "{path} 属于 `compat` 兼容包，不适用于这块 GPU 或驱动 {release}",
                ),
                (
                    "remove /usr/local/cuda*/compat from LD_LIBRARY_PATH",
                    "请从 LD_LIBRARY_PATH 里去掉 /usr/local/cuda*/compat",
                ),
            ),
            "works": Case(
                (
                    "a `compat` package raises the driver's API to {api}, and works",
                    "`compat` 兼容包把驱动 API 提高到 {api}，工作正常",
                )
            ),
        },
        (
            """\
The driver library and the kernel's driver do not fit together.

Either the driver was updated and the old kernel module still runs, or the libcuda.so.1
of a `compat` package comes before the driver's own. Such packages let an older driver
run newer CUDA, on data centre GPUs only; torch then says "Error 804: forward
compatibility was attempted on non supported HW".

What to do

- Reboot after a driver update.
- Remove /usr/local/cuda*/compat from LD_LIBRARY_PATH, or update the driver.""",
            """\
驱动的动态库与内核驱动不匹配。

要么驱动升级后旧的内核模块还在运行，要么 `compat` 兼容包的 libcuda.so.1 排在了驱动自己的
前面。兼容包能让旧驱动运行新版 CUDA，但只适用于数据中心 GPU；不适用时 torch 会报 “Error
804: forward compatibility was attempted on non supported HW”。

怎么办

- 升级驱动之后重启机器。
- 从 LD_LIBRARY_PATH 里去掉 /usr/local/cuda*/compat，或者升级驱动。""",
        ),
    ),
    "MR107": Text(
        "driver",
        ("the fabric manager runs", "fabric manager 正在运行"),
        {
            "answer": Case(
                (
                    "the GPUs are not ready: NVIDIA's fabric manager does not run",
                    "GPU 尚未就绪：NVIDIA fabric manager 没有运行",
                ),
                "sudo systemctl start nvidia-fabricmanager",
            )
        },
        (
            """\
The GPUs of this machine are not ready: NVIDIA's fabric manager does not run.

Machines with NVSwitch (HGX, DGX) need it. torch says "Error 802: system not yet
initialized".

What to do

- systemctl start nvidia-fabricmanager, in the same version as the driver.""",
            """\
这台机器的 GPU 尚未就绪：NVIDIA fabric manager 没有运行。

带 NVSwitch 的机器（HGX、DGX）需要它。此时 torch 会报 “Error 802: system not yet
initialized”。

怎么办

- systemctl start nvidia-fabricmanager，版本必须与驱动一致。""",
        ),
    ),
    "MR108": Text(
        "driver",
        ("the device files can be opened", "设备文件可以打开"),
        {
            "open": Case(
                ("the device files are there and open", "设备文件齐全，可以打开")
            ),
            "missing": Case(
                ("device files of the driver are missing", "缺少驱动的设备文件"),
                "sudo nvidia-modprobe -c 0 -u",
            ),
            "container": Case(
                (
                    "device files of the driver are missing from this container",
                    "这个容器里缺少驱动的设备文件",
                ),
                CONTAINER,
            ),
            "closed": Case(
                (
                    "this user may not open the driver's device files",
                    "当前用户无权打开驱动的设备文件",
                ),
                "sudo usermod -aG video $USER",
            ),
            "none": Case(("no driver that has device files", "没有使用设备文件的驱动")),
        },
        (
            """\
A program reaches the GPU through /dev/nvidiactl, /dev/nvidia0 and /dev/nvidia-uvm.

One is missing, or its permissions keep this user out. nvidia-uvm is often missing until
the first program with root's rights has used CUDA since the machine was started.

What to do

- nvidia-modprobe -c 0 -u, as root, makes them.
- On a cluster the scheduler decides who may open them: ask for a GPU in the job.""",
            """\
程序通过 /dev/nvidiactl、/dev/nvidia0 和 /dev/nvidia-uvm 使用 GPU。

现在缺少其中某个文件，或者权限不允许当前用户打开。开机之后，在第一个有 root 权限的程序用
过 CUDA 之前，nvidia-uvm 常常还不存在。

怎么办

- 以 root 执行 nvidia-modprobe -c 0 -u 来创建。
- 在集群上由调度系统决定谁能打开：提交作业时要申请 GPU。""",
        ),
    ),
    "MR109": Text(
        "driver",
        ("no GPU is hidden", "没有 GPU 被隐藏"),
        {
            "hidden": Case(
                (
                    "{name}='{value}' hides the GPUs of this machine",
                    "{name}='{value}' 隐藏了本机的 GPU",
                ),
                "unset {name}",
            ),
            "withheld": Case(
                (
                    "{name}='{value}' keeps the GPUs from this container",
                    "{name}='{value}' 使这个容器看不到 GPU",
                ),
                CONTAINER,
            ),
            "unexplained": Case(
                (
                    "{count} GPU(s) here, and the driver shows none of them to this "
                    "process",
                    "本机有 {count} 块 GPU，但驱动没有让这个进程看到任何一块",
                ),
                LOOK,
            ),
            "none": Case(
                (
                    "the driver works and finds no GPU",
                    "驱动可用，但没有找到 GPU",
                ),
                LOOK,
            ),
            "some": Case(
                (
                    "{shown} of {count} GPUs are visible to this process",
                    "{count} 块 GPU 中有 {shown} 块对这个进程可见",
                )
            ),
        },
        (
            """\
The driver does not show that GPU to this process.

What to do

- Look at CUDA_VISIBLE_DEVICES: an empty value or -1 hides all GPUs, a wrong number
hides those after it.
- In a container: NVIDIA_VISIBLE_DEVICES, and --gpus.""",
            """\
驱动没有让这个进程看到这块 GPU。

怎么办

- 检查 CUDA_VISIBLE_DEVICES：空值或 -1 会隐藏所有 GPU，写错的编号会让它后面的 GPU 都不可
见。
- 在容器里检查 NVIDIA_VISIBLE_DEVICES 和 --gpus。""",
        ),
    ),
    "MR110": Text(
        "gpu",
        ("which GPUs there are", "有哪些 GPU"),
        {
            "gpu": Case(
                (
                    "cuda:{number} is {name}, compute capability {capability}, "
                    "{memory} GiB",
                    "cuda:{number} 是 {name}，计算能力 {capability}，{memory} GiB",
                )
            ),
            "integrated": Case(
                (
                    "cuda:{number} is {name}, compute capability {capability}, "
                    "shares {memory} GiB with the processor",
                    "cuda:{number} 是 {name}，计算能力 {capability}，"
                    "与处理器共用 {memory} GiB 内存",
                )
            ),
            "mig": Case(
                (
                    "cuda:{number} is {name}, compute capability {capability}, "
                    "{memory} GiB, a slice of a GPU (MIG)",
                    "cuda:{number} 是 {name}，计算能力 {capability}，{memory} GiB，"
                    "是一块 GPU 的分片（MIG）",
                )
            ),
            "none": Case(("no GPU is visible", "没有可见的 GPU")),
        },
        (
            """\
The GPUs that the driver shows to this process, in the order of its numbers.

The compute capability decides which variant runs there: sm_80 is 8.0. GPUs whose
numbers come from CUDA_VISIBLE_DEVICES count from 0 again.""",
            """\
驱动让这个进程看到的 GPU，按编号排列。

计算能力决定用哪个变体：sm_80 就是 8.0。设置了 CUDA_VISIBLE_DEVICES 时，编号重新从 0 数
起。""",
        ),
    ),
    "MR111": Text(
        "gpu",
        ("the GPU has room for this process", "GPU 没有被占满或独占"),
        {
            "answer": Case(
                (
                    "the GPU has no room for this process",
                    "GPU 没有余量给这个进程（显存已满或被独占）",
                ),
                LOOK,
            ),
            "mode": Case(
                (
                    "cuda:{number} is in compute mode `{mode}`: others cannot use it "
                    "at the same time, or nobody can",
                    "cuda:{number} 处于计算模式 `{mode}`：别人不能同时使用，"
                    "或者谁都不能用",
                ),
                "sudo nvidia-smi -c DEFAULT",
            ),
        },
        (
            """\
The GPU has no room for this process.

Its memory is full, so that neither a context nor kernels fit, or another process has it
for itself (compute mode EXCLUSIVE_PROCESS). The next call tries again.

What to do

- `nvidia-smi` shows who uses it.
- Call mambarun.preload(device) early, before other things fill the memory.""",
            """\
GPU 没有余量给这个进程。

要么显存已满，连上下文或内核代码都放不下；要么另一个进程独占了它（计算模式
EXCLUSIVE_PROCESS）。下一次调用会再试。

怎么办

- 用 `nvidia-smi` 查看谁在使用。
- 尽早调用 mambarun.preload(device)，赶在显存被占满之前。""",
        ),
    ),
    "MR112": Text(
        "driver",
        ("the driver answers, and well", "驱动响应正常"),
        {
            "answer": Case(
                ("the CUDA driver failed", "CUDA 驱动出错"),
                LOOK,
            ),
            "gpu": Case(
                ("cuda:{number} does not answer", "cuda:{number} 响应异常"), LOOK
            ),
            "dies": Case(
                (
                    "the process that asks the driver died ({how}) at: {stage}",
                    "询问驱动的进程在 {stage} 这一步崩溃（{how}）",
                ),
                LOOK,
            ),
            "hangs": Case(
                (
                    "the driver did not answer within {seconds} s at: {stage}",
                    "驱动在 {stage} 这一步超过 {seconds} 秒没有响应",
                ),
                LOOK,
            ),
            "unstarted": Case(
                (
                    "the process that asks the driver did not start ({how})",
                    "询问驱动的进程没能启动（{how}）",
                ),
                "python -m mambarun -v",
            ),
        },
        (
            """\
The CUDA driver failed, with the code and text that the message shows.

mambarun-check asks the driver in a process of its own, with a time limit. If that
process crashes or hangs, the driver does so in every other program, and there is no
verdict: exit status 3.

What to do

- See whether `nvidia-smi` and a small torch program work on that GPU; if they do not,
the reason lies with the driver. A GPU that fell off the bus wants a reboot.""",
            """\
CUDA 驱动出错，错误码和说明见提示。

mambarun-check 在单独的进程里询问驱动，并限制时间。如果那个进程崩溃或卡住，说明驱动在其
他程序里也会如此，这时无法下结论，退出码为 3。

怎么办

- 试试 `nvidia-smi` 和一个简单的 torch 程序能否使用这块 GPU；如果也不行，问题就在驱动。
GPU 掉线（fell off the bus）时需要重启机器。""",
        ),
    ),
    "MR113": Text(
        "gpu",
        ("the driver's compiler for PTX is there", "驱动的 PTX 编译器存在"),
        {
            "here": Case(
                ("the driver's PTX compiler is there", "驱动的 PTX 编译器存在")
            ),
            "missing": Case(
                (
                    "this GPU needs PTX, and the driver's compiler for it, "
                    "libnvidia-ptxjitcompiler.so.1, is not there",
                    "这块 GPU 要用 PTX，但驱动的 PTX 编译器 "
                    "libnvidia-ptxjitcompiler.so.1 不存在",
                ),
                "sudo apt install libnvidia-ptxjitcompiler1",
            ),
            "container": Case(
                (
                    "this GPU needs PTX, and the driver's compiler for it, "
                    "libnvidia-ptxjitcompiler.so.1, is not there",
                    "这块 GPU 要用 PTX，但驱动的 PTX 编译器 "
                    "libnvidia-ptxjitcompiler.so.1 不存在",
                ),
                CONTAINER,
            ),
        },
        (
            """\
The driver's compiler for PTX is not there.

A variant whose name has `ptx` in it is compiled by the driver when it is first used.
For that the driver loads libnvidia-ptxjitcompiler.so.1, which some containers lack.

What to do

- In a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility; with Debian's packages it
is libnvidia-ptxjitcompiler1.
- A GPU for which there is a cubin variant does not need it: see MR120.""",
            """\
驱动的 PTX 编译器不存在。

名字里带 `ptx` 的变体在首次使用时由驱动编译，驱动为此要加载
libnvidia-ptxjitcompiler.so.1，而有些容器里没有它。

怎么办

- 容器要设置 NVIDIA_DRIVER_CAPABILITIES=compute,utility；Debian 的包名是
libnvidia-ptxjitcompiler1。
- 有 cubin 变体可用的 GPU 不需要它：参见 MR120。""",
        ),
    ),
    "MR114": Text(
        "gpu",
        ("the driver compiles the variant's PTX", "驱动能编译变体的 PTX"),
        {},
        (
            """\
The driver does not compile the PTX of this variant.

The driver is older than the PTX, or CUDA_DISABLE_PTX_JIT is set.

What to do

- Unset CUDA_DISABLE_PTX_JIT, or update the driver.
- See what would run here: mambarun-check -v""",
            """\
驱动不能编译这个变体的 PTX。

驱动比 PTX 旧，或者设置了 CUDA_DISABLE_PTX_JIT。

怎么办

- 取消 CUDA_DISABLE_PTX_JIT，或者升级驱动。
- 查看这里能用什么：mambarun-check -v""",
        ),
    ),
    "MR115": Text(
        "gpu",
        ("the variant's kernels load", "变体的内核能加载"),
        {},
        (
            """\
A variant's kernels do not load on this GPU.

The driver cannot read them, or finds no code for this GPU in them, or a kernel is
missing. Either the file is damaged, or it is not what its name says.

What to do

- Reinstall: pip install --force-reinstall --no-deps mambarun
- Look at MAMBARUN_PATH: it may name a folder with other files.
- If that does not help, it is a fault of mambarun: please report the message.""",
            """\
某个变体的内核在这块 GPU 上加载不了。

驱动读不懂它，或者里面没有这块 GPU 的代码，或者缺少某个内核。文件可能损坏了，也可能名不
副实。

怎么办

- 重新安装：pip install --force-reinstall --no-deps mambarun
- 检查 MAMBARUN_PATH：它可能指向了别的文件。
- 仍然不行就是 mambarun 的缺陷，请把提示报告给我们。""",
        ),
    ),
    "MR116": Text(
        "gpu",
        ("kernels are loaded before a capture", "捕获之前内核已加载"),
        {},
        (
            """\
The first call for a GPU was made while a CUDA graph was captured.

The first call loads the kernels, and the driver loads nothing during a capture.

What to do

- Call mambarun.preload(device) before capturing, or run the model once: graphs want a
warm-up in any case.""",
            """\
对某块 GPU 的第一次调用发生在捕获 CUDA 图的过程中。

第一次调用要加载内核，而捕获期间驱动不加载任何东西。

怎么办

- 捕获之前先调用 mambarun.preload(device)，或者先完整运行一次模型：捕获 CUDA 图本来就需
要预热。""",
        ),
    ),
    "MR117": Text(
        "gpu",
        ("no earlier kernel failed", "之前的内核没有出错"),
        {},
        (
            """\
The GPU, or a kernel that ran before, failed; every call for that GPU now fails.

CUDA reports such a fault at some later call, which need not have to do with it.

What to do

- Restart the process with CUDA_LAUNCH_BLOCKING=1: then the call that is to blame says
so itself.
- If that is one of mambarun's, please report it with the shapes and types.""",
            """\
GPU 或者之前运行的某个内核出错了，此后对这块 GPU 的调用都会失败。

CUDA 会在之后的某次调用时才报告这类错误，而那次调用未必与错误有关。

怎么办

- 设置 CUDA_LAUNCH_BLOCKING=1 重新运行：出错的那次调用会自己报出来。
- 如果是 mambarun 的调用，请连同形状和数据类型一起报告给我们。""",
        ),
    ),
    "MR118": Text(
        "gpu",
        ("the driver takes the launch", "驱动接受内核启动"),
        {},
        (
            """\
The driver refuses to launch a kernel with these sizes, or on this stream.

The message has the kernel and its sizes.

What to do

- A stream belongs to one device: use the current stream of the tensors' device.
- Otherwise it is a fault of mambarun: please report the message, with the shapes.""",
            """\
驱动拒绝以这样的尺寸、或在这个流上启动内核。

提示里有内核的名字和尺寸。

怎么办

- 流属于某一个设备：请使用张量所在设备的当前流。
- 否则就是 mambarun 的缺陷，请把提示连同形状一起报告给我们。""",
        ),
    ),
    "MR119": Text(
        "gpu",
        ("CUDA was not used before a fork", "fork 之前没有使用 CUDA"),
        {},
        (
            """\
CUDA was used in this process before it was forked, and does not outlive that.

What to do

- Start worker processes by `spawn`: torch.multiprocessing.set_start_method("spawn"), or
multiprocessing_context="spawn" for a DataLoader.
- Or use no GPU before forking.""",
            """\
这个进程在 fork 之前用过 CUDA，而 CUDA 在 fork 之后不能继续使用。

怎么办

- 用 `spawn` 方式启动子进程：torch.multiprocessing.set_start_method("spawn")；DataLoader
则传 multiprocessing_context="spawn"。
- 或者在 fork 之前不使用 GPU。""",
        ),
    ),
    "MR120": Text(
        "gpu",
        (
            "there is a variant for every GPU and for the CPU",
            "每块 GPU 和 CPU 都有变体可用",
        ),
        {
            "cpu": Case(
                ("tensors on the CPU run on {variant}", "CPU 张量使用 {variant}")
            ),
            "cubin": Case(
                (
                    "cuda:{number} runs on {variant}, compiled for it beforehand",
                    "cuda:{number} 使用 {variant}，内核已预先编译",
                )
            ),
            "ptx": Case(
                (
                    "cuda:{number} runs on {variant}, which the driver compiles at the "
                    "first use: half a minute, then it is kept in {cache}",
                    "cuda:{number} 使用 {variant}，首次使用时由驱动编译，大约半分钟，"
                    "之后缓存在 {cache}",
                ),
                "python -c \"import mambarun; mambarun.preload('cuda')\"",
            ),
            "ptx_not_kept": Case(
                (
                    "cuda:{number} runs on {variant}, which the driver compiles anew "
                    "in every process, as CUDA_CACHE_DISABLE is set: half a minute",
                    "cuda:{number} 使用 {variant}，由于设置了 CUDA_CACHE_DISABLE，"
                    "每个进程都要由驱动重新编译，大约半分钟",
                ),
                "unset CUDA_CACHE_DISABLE",
            ),
            "none": Case(
                (
                    "no variant is for cuda:{number}, {name} (compute capability "
                    "{capability})",
                    "没有适合 cuda:{number} 的变体：{name}（计算能力 {capability}）",
                ),
                (
                    "use a newer GPU, or tensors on the CPU",
                    "请换用更新的 GPU，或使用 CPU 张量",
                ),
            ),
            "old_driver": Case(
                (
                    "no variant runs on cuda:{number}, {name} (compute capability "
                    "{capability}, driver API {api})",
                    "没有变体能在 cuda:{number} 上运行："
                    "{name}（计算能力 {capability}，驱动 API {api}）",
                ),
                ("update the NVIDIA driver", "请升级 NVIDIA 驱动"),
            ),
            "asked": Case(
                (
                    "MAMBARUN_VARIANT={asked} does not run on cuda:{number}, {name} "
                    "(compute capability {capability}, driver API {api})",
                    "MAMBARUN_VARIANT={asked} 不能在 cuda:{number} 上运行："
                    "{name}（计算能力 {capability}，驱动 API {api}）",
                ),
                "unset MAMBARUN_VARIANT",
            ),
            "not_installed": Case(
                (
                    "the variant for cuda:{number}, {name}, is not installed",
                    "cuda:{number}（{name}）所需的变体没有安装",
                ),
                (
                    "install the wheel that ci/wheel.sh builds: it has every variant",
                    "请安装 ci/wheel.sh 构建的安装包，它包含所有变体",
                ),
            ),
        },
        (
            """\
No variant of mambarun can run this call on this device.

A variant is one prebuilt library: cpu_avx2 for CPUs with AVX2, cuda12_sm80 for GPUs of
compute capability 8.x, and so on. The message lists every one with its reason:

    not installed            its file does not lie beside libmambarun.so
    needs AVX2, ...          this processor, or the operating system, lacks it
    needs sm_90, ...         it was built for another GPU
    needs driver API ...     the NVIDIA driver is too old for it
    not asked for            MAMBARUN_VARIANT names another

A row may also end with a code of its own, such as MR113.

Tensors on a GPU are never run on the CPU instead. "no kernel image is available for
execution on the device", as other builds of these modules say it, is this: they hold no
code for your GPU.

What to do

- `not installed` everywhere: this mambarun was built without CUDA variants.
- Move the tensors and the model to the CPU, or update the driver.
- See what would run here: mambarun-check -v""",
            """\
mambarun 没有任何变体能在这个设备上执行这次调用。

变体是预先编译好的动态库：cpu_avx2 用于支持 AVX2 的 CPU，cuda12_sm80 用于计算能力 8.x 的
GPU，等等。提示里会逐个列出原因：

    not installed            libmambarun.so 旁边没有它的文件
    needs AVX2, ...          处理器或操作系统不支持
    needs sm_90, ...         为别的 GPU 编译
    needs driver API ...     NVIDIA 驱动太旧
    not asked for            MAMBARUN_VARIANT 指定了别的变体

有的行末尾还带有自己的编号，例如 MR113。

GPU 张量绝不会转到 CPU 上计算。这些模块的其他构建所报的 “no kernel image is available
for execution on the device” 说的就是这件事：里面没有你这块 GPU 的代码。

怎么办

- 所有变体都是 `not installed`：这份 mambarun 构建时没有包含 CUDA 变体。
- 把张量和模型移到 CPU，或者升级驱动。
- 查看这里能用什么：mambarun-check -v""",
        ),
    ),
    "MR121": Text(
        "gpu",
        ("the GPUs are alike", "各块 GPU 型号一致"),
        {
            "unlike": Case(
                (
                    "the GPUs differ, each gets its own variant: {gpus}",
                    "GPU 型号不同，各用各的变体：{gpus}",
                )
            )
        },
        (
            """\
A machine with GPUs of different kinds.

The variant is chosen for each device by itself, at the first call with tensors there,
so this works. With CUDA_VISIBLE_DEVICES the numbers may change: see MR110.""",
            """\
机器上有不同型号的 GPU。

变体按设备分别选择，在该设备第一次被调用时决定，所以可以正常使用。设置
CUDA_VISIBLE_DEVICES 后编号可能改变：参见 MR110。""",
        ),
    ),
}
