"""What editors and type checkers see of the lazy `vrlit`.

`python .ci/stub.py` writes vrlit/__init__.pyi; with --check it only exits with 1 if that is out of date."""
import importlib.util, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]

def stub():
    spec = importlib.util.spec_from_file_location('vrlit', root/'vrlit'/'__init__.py')
    vrlit = importlib.util.module_from_spec(spec)
    sys.modules['vrlit'] = vrlit
    spec.loader.exec_module(vrlit)
    homes = sorted((home.removeprefix('vrlit'), name) for name, home in vrlit._homes().items())
    lines = [f'from {home or "."} import {name} as {name}' for home, name in homes]
    return '\n'.join(["# Written by .ci/stub.py from nbdev's index.", *lines, '', '__version__: str', ''])

if __name__ == '__main__':
    file, new = root/'vrlit'/'__init__.pyi', stub()
    if '--check' not in sys.argv: file.write_text(new, encoding='utf-8')
    elif not file.exists() or file.read_text(encoding='utf-8') != new:
        sys.exit('vrlit/__init__.pyi is not what vrlit/_modidx.py says: run `python .ci/stub.py`')
