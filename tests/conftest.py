"What the tests share: the checkout under test, a copy of it to play with, and data that only developers have"
import multiprocessing, os, shutil, signal, subprocess, sys, tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = os.environ.get('VRLIT_SHARED') # a folder with real data and models, which only developers have
sys.path.insert(0, str(ROOT)) # this checkout is tested, whatever else is installed
os.environ.setdefault('MPLBACKEND', 'Agg')
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler) # as a job in the background has it
os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported: the threads of two processes get into each other's way
os.environ.setdefault('HF_HUB_OFFLINE', '1')   # no test needs a network, and none waits for one

# Children of this process are forked from a server that has imported what takes seconds (torch above all), and has done nothing else
HEAVY = 'torch torchvision timm open_clip matplotlib.pyplot seaborn sklearn.datasets sklearn.model_selection nbdev.test'.split()
forks = multiprocessing.get_context('forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn')
if hasattr(forks, 'set_forkserver_preload'): forks.set_forkserver_preload(HEAVY)

def forked(target, *args, cwd=ROOT, env=(), timeout=300):
    "(exit status, stdout, stderr) of `target(*args)` in a fresh process: as a program of its own, without waiting for its imports"
    with tempfile.TemporaryDirectory() as folder:
        out, err = (os.path.join(folder, name) for name in ('out', 'err'))
        child = forks.Process(target=_in_child, args=(target, args, str(cwd), dict(env), out, err))
        child.start()
        child.join(timeout)
        if child.is_alive(): child.kill()
        child.join()
        read = lambda name: Path(name).read_text(encoding='utf-8') if os.path.exists(name) else ''
        return child.exitcode, read(out), read(err)

def _in_child(target, args, cwd, env, out, err):
    for fd, name in ((1, out), (2, err)): os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), fd)
    sys.stdout, sys.stderr = (open(fd, 'w', encoding='utf-8', buffering=1, closefd=False) for fd in (1, 2))
    sys.stdin = open(os.devnull)
    os.chdir(cwd)
    os.environ.pop('IN_TEST', None) # nbdev_export is a silent no-op where it is set
    os.environ.update(env)
    target(*args)

def some_pictures(folder):
    "Two classes of a few small pictures, dark and bright: a task that trains in a second"
    import numpy as np
    from PIL import Image
    for i in range(60):
        path = folder / ('dark', 'bright')[i % 2] / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 128 * (i % 2)
        Image.fromarray(np.random.default_rng(i).integers(low, 128 + low, (8, 8, 3), dtype=np.uint8)).save(path)
    return folder

# Makes of root a user to whom files of others are closed: without its capabilities
ORDINARY = '''import ctypes
assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
'''
root_only = pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() != 0 or sys.platform != 'linux', reason='makes files of another user, as only root can, on Linux')
SOMEBODY = 65534

def pytest_report_header():
    def of(name):
        try: return f'{name} {version(name)}'
        except PackageNotFoundError: return f'{name} (not installed)'
    return 'versions: ' + ', '.join(map(of, 'vrlit torch torchvision timm open_clip_torch nbdev execnb fastcore setuptools'.split()))

@pytest.fixture(scope='session')
def shared():
    "`shared('golden')` is that path in the developers' data, $VRLIT_SHARED; without it the test is skipped"
    def get(name=''):
        if not SHARED or not (Path(SHARED) / name).exists(): pytest.skip(f'{name} is not there: set VRLIT_SHARED to the folder that has it')
        return Path(SHARED) / name
    return get

@pytest.fixture(scope='session')
def golden(shared):
    "`golden('file')`: output of an official implementation, from tests/golden/ if it is committed, else from the shared data"
    def get(name):
        mine = ROOT / 'tests' / 'golden' / name
        return mine if mine.exists() else shared(f'golden/{name}')
    return get

@pytest.fixture
def checkout(tmp_path):
    "A copy of what the package is made from"
    to, junk = tmp_path / 'vrlit-checkout', shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '*.egg-info')
    to.mkdir()
    for name in 'nbs vrlit .ci settings.ini setup.py setup.cfg MANIFEST.in _quarto.yml README.md LICENSE CHANGELOG.md CITATION.cff'.split():
        if (ROOT / name).is_dir(): shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=junk)
        else: shutil.copy2(ROOT / name, to / name)
    return to

@pytest.fixture(scope='session')
def python():
    "Runs this Python in a process of its own: `python('-c', code, cwd=...)` is what it printed, and exit != 0 fails the test"
    def run(*args, timeout=300, env=(), **kwargs):
        # nbdev_export is a silent no-op where IN_TEST is set
        full = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')} | dict(env)
        try: res = subprocess.run([sys.executable, *map(str, args)], env=full, timeout=timeout, text=True, encoding='utf-8',
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **kwargs)
        except subprocess.TimeoutExpired as e: pytest.fail(f'not done after {timeout} s; so far:\n{e.stdout or ""}', pytrace=False)
        if res.returncode: pytest.fail(f'exit {res.returncode}\n{res.stdout[-8000:]}', pytrace=False)
        return res.stdout
    return run

def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='run what takes minutes as well')

def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'): return
    for item in items:
        if item.get_closest_marker('slow'): item.add_marker(pytest.mark.skip(reason='takes minutes: pytest --slow'))
