"""A stand-in for NVIDIA's images: their `download-to-cache`, as a static program in an image of one layer.

It needs NGC_API_KEY, says what it does, and writes a file into the cache. A file named `said` in the cache decides
otherwise: its text is what the program complains of before it exits with 1; `wait` makes it wait for SIGTERM.
"""

import subprocess
from pathlib import Path

from tests.lib import lab

CACHE = "/opt/nim/.cache"
WEIGHTS = b"w" * 70_000
_SOURCE = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static void ended(int number) { (void)number; _exit(143); }
int main(void) {
    char text[400] = {0}, block[70000];
    const char *key = getenv("NGC_API_KEY");
    signal(SIGTERM, ended);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!key || !*key) { puts("ERROR: NGC_API_KEY is not set"); return 1; }
    int told = open(CACHE "/said", O_RDONLY);
    if (told >= 0) {
        read(told, text, sizeof text - 1);
        puts(text);
        if (!strncmp(text, "wait", 4)) for (;;) pause();
        return 1;
    }
    printf("downloading with a key of %zu characters\n", strlen(key));
    umask(0002);
    mkdir(CACHE "/ngc", 0770);
    int file = open(CACHE "/ngc/weights", O_WRONLY | O_CREAT | O_TRUNC, 0660);
    memset(block, 'w', sizeof block);
    if (file < 0 || write(file, block, sizeof block) != sizeof block) { perror("OSError"); return 1; }
    puts("all files are in the cache");
    return 0;
}
"""


def push(name: str, folder: Path) -> str:
    """Compile the program in `folder` and push its image under `name`. Returns the reference."""
    source, program = folder / "download.c", folder / "download-to-cache"
    source.write_text(f'#define CACHE "{CACHE}"\n{_SOURCE}')
    subprocess.run(["cc", "-static", "-O1", "-w", "-o", program, source], check=True, timeout=60)
    lab.push_image(name, {"usr/bin/download-to-cache": program.read_bytes()})
    return f"{lab.registry_info().address}/{name}"
