import subprocess
import sys

CODE = """
import resource, sys, threading
import numpy as np
from defocus_sim import Lens, defocus
from defocus_sim.convert.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
image, depth_m = np.zeros((427, 561, 3), np.uint8), np.tile(np.linspace(1, 5, 561), (427, 1))

def work():
    for turn in range(8):
        if turn == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        defocus(image, depth_m, Lens.preset("paper"), mode="layered", psf="disc")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_threads_do_not_fetch_the_same_memory_again_and_again():
    def faults(mode):
        result = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True)
        return int(result.stdout)

    assert faults("keep") < 0.1 * faults("usual")
