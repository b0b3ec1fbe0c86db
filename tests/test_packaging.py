"The package: names found lazily, a wheel that works without the repo, and one version and one command line everywhere"
import os, re, sys, zipfile
from collections import Counter
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from statistics import median

import pytest

import vrlit
from conftest import some_pictures
from vrlit._modidx import d as index

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']
text = lambda name: (ROOT / name).read_text(encoding='utf-8')

# ---- `import vrlit` ------------------------------------------------------------------------------------------------

def test_public_names():
    assert {'Reprogrammed', 'load_source', 'load_task', 'ILM', 'sources', 'mappings', 'prompts', 'cli'} <= {*vrlit.__all__}
    offered = [n for n in dir(vrlit) if n[0] != '_'] # by TAB: what a reader looks for, and every prompt and mapping that the command line knows
    assert {'load_source', 'fit', 'show', *vrlit.list_prompts(), *vrlit.list_mappings()} <= {*offered} <= {*vrlit.__all__} and len(offered) < 60
    assert 'main' not in vrlit.__all__ and not [n for n in vrlit.__all__ if n.startswith('_')]
    for name in vrlit.__all__:
        value = getattr(vrlit, name)
        assert value.__name__.rpartition('.')[2] == name and value.__doc__, f'vrlit.{name} has no docstring'

def test_a_name_has_one_home():
    symbols = [(s.removeprefix(m + '.'), m) for m, names in index['syms'].items() for s in names]
    symbols = [(s, m) for s, m in symbols if '.' not in s and s[0] != '_' and m != 'vrlit.cli']
    modules = {m.split('.')[1] for m in index['syms']}
    homes = Counter([s for s, _ in symbols] + [*modules])
    twice = {n: [m for s, m in symbols if s == n] for n, k in homes.items() if k > 1}
    assert not twice, f'names with more than one home, or with that of a module: {twice}'

def test_a_wrong_name_suggests_the_nearest():
    with pytest.raises(AttributeError, match="'Reprogramed', did you mean 'Reprogrammed'"): vrlit.Reprogramed
    with pytest.raises(AttributeError, match="no attribute 'qqqqqqq'$"): vrlit.qqqqqqq
    with pytest.raises(ImportError): from vrlit import Reprogramed

def test_import_costs_nothing(python):
    "At most 50 ms, and not by leaving torch out of the count: it is not imported"
    def cost():
        out = python('-X', 'importtime', '-c', 'import vrlit', cwd=ROOT)
        rows = {m[2]: int(m[1]) for m in re.finditer(r'\|\s+(\d+) \|\s+(\S+)$', out, re.M)}
        assert not {'torch', 'numpy', 'matplotlib'} & rows.keys()
        return rows['vrlit']
    assert median(cost() for _ in range(5)) <= 50_000

# ---- the wheel -----------------------------------------------------------------------------------------------------

def test_wheel_works_without_the_repo(checkout, python, tmp_path):
    "Built by way of the sdist, installed beside nothing but its requirements, used from an empty folder"
    python('-m', 'build', '--no-isolation', '--outdir', tmp_path / 'dist', checkout, cwd=tmp_path)
    wheel, = (tmp_path / 'dist').glob('*.whl')
    with zipfile.ZipFile(wheel) as z:
        names, meta = z.namelist(), Parser().parsestr(z.read(f'vrlit-{settings["version"]}.dist-info/METADATA').decode())
    assert {'vrlit/py.typed', 'vrlit/__init__.pyi', 'vrlit/_modidx.py', *(f'vrlit/data/{p.name}' for p in (ROOT / 'vrlit' / 'data').iterdir())} <= {*names}
    assert {n.split('/')[0] for n in names} == {'vrlit', f'vrlit-{settings["version"]}.dist-info'}
    pages = {p.relative_to(ROOT).as_posix() for kind in ('ipynb', 'csv', 'toml', 'png', 'bib') for p in (ROOT / 'nbs').rglob(f'*.{kind}') if '/.' not in str(p)}
    assert {f'vrlit/{p}' for p in pages} == {n for n in names if n.startswith('vrlit/nbs/')} and len(pages) > 80
    assert not [n for n in names if 'test' in n]
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'vrlit').rglob('*.py')}
    assert modules == {n for n in names if n.endswith('.py')}

    needs = meta.get_all('Requires-Dist')
    always = {re.match(r'[\w-]+', n)[0].replace('-', '_').lower() for n in needs if 'extra' not in n}
    assert always == {'torch', 'torchvision', 'timm', 'open_clip_torch', 'matplotlib', 'seaborn', 'safetensors', 'scipy', 'tqdm', 'scikit_learn', 'typer'}
    assert {*meta.get_all('Provides-Extra')} == {'datasets', 'tensorboard', 'onnx', 'ray', 'search', 'accelerate', 'notebooks', 'dev'} and any(n.startswith('nbdev==') for n in needs)
    assert meta['Version'] == settings['version'] and meta['Requires-Python'] == '>=3.10'
    assert 'Apache-2.0' in (meta['License'], meta['License-Expression'])

    site, empty = tmp_path / 'site', tmp_path / 'empty'
    empty.mkdir()
    python('-m', 'pip', 'install', '--no-deps', '--no-index', '--disable-pip-version-check', '--target', site, wheel, cwd=empty)
    run = lambda *args: python(*args, cwd=empty, env={'PYTHONPATH': str(site), 'VRLIT_CACHE': str(tmp_path / 'cache')})
    assert Path(run('-c', 'import vrlit; print(vrlit.__file__)').strip()).is_relative_to(site)
    pile = some_pictures(tmp_path / 'pile')
    out = run(site / 'bin' / 'vrlit' if sys.platform != 'win32' else '-mvrlit.cli', 'demo', '--task', pile, '--epochs', 1)
    assert len(re.findall(r'^pile .*%', out, re.M)) == 6, out
    assert [p.name for p in empty.iterdir()] == ['vrlit-demo.png']
    told = run('-m', 'vrlit', 'notebooks', tmp_path / 'pages')
    assert 'jupyter lab' in told and {p.relative_to(tmp_path / 'pages').as_posix() for p in (tmp_path / 'pages').rglob('*.*')} == {p.removeprefix('nbs/') for p in pages}, told
    for page in '00_reprogram', '25_optimal', 'experiments/70_prompts':
        run('-m', 'nbconvert', '--execute', '--to', 'notebook', '--output-dir', tmp_path / 'run', tmp_path / 'pages' / f'{page}.ipynb')

# ---- said once, or the same everywhere -----------------------------------------------------------------------------

def test_one_version():
    v = settings['version']
    assert vrlit.__version__ == v and f'\nversion: {v}\n' in text('CITATION.cff') and f'\n## [{v}]' in text('CHANGELOG.md') and f'version = {{{v}}}' in text('README.md')

def test_continuous_integration_runs_what_the_readme_says():
    line = "pip install -e '.[dev]' && pytest"
    assert line in text('README.md') and line in text('.ci/run').splitlines()
    assert 'run: bash .ci/run' in text('.github/workflows/test.yml')
    assert os.access(ROOT / '.ci' / 'run', os.X_OK)

def test_runs_on_the_pythons_it_names():
    import yaml
    matrix = yaml.safe_load(text('.github/workflows/test.yml'))['jobs']['test']['strategy']['matrix']['python']
    assert matrix[0] == settings['min_python'] and all(f"'{v}'" in text('setup.py') for v in matrix)
