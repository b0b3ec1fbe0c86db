"The site's pages, as far as they are made without Quarto"
import json, re
from configparser import ConfigParser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def plain(text): return ' '.join(re.sub(r'\]\([^)]*\)|[`[\]]', '', text).split()) # without links and backticks
def shown(cell): return source(cell) + '\n' + '\n'.join(''.join(o.get('data', {}).get('text/markdown', '')) for o in cell.get('outputs', []))

def test_pages(checkout, python):
    "One page per notebook, with its pictures, and on it the documentation of every function and class it exports"
    python('-c', "from nbdev.serve import proc_nbs; proc_nbs(path='nbs', n_workers=0, force=True)", cwd=checkout)
    nbs, proc = checkout / 'nbs', checkout / '_proc'
    notebooks = {p.relative_to(nbs) for p in nbs.rglob('*.ipynb')}
    assert notebooks and notebooks == {p.relative_to(proc) for p in proc.rglob('*.ipynb')}
    for name in ('_quarto.yml', 'nbdev.yml', 'sidebar.yml', 'styles.css', 'fold.lua'): assert (proc / name).is_file(), name
    for p in notebooks:
        page = '\n'.join(shown(c) for c in cells(proc / p))
        opening = next(source(c) for c in cells(nbs / p)[1:] if c['cell_type'] == 'markdown')
        assert plain(opening)[:100] in plain(page), f'{p}: the page has lost its opening:\n{opening}'
        commands = re.findall(r'\[`\w+`\]\([^)]*cli\.html#\w+\)', page) if 'cli' not in p.stem else []
        assert not commands, f'{p}: the name of something else is taken for a function of the command line: {commands}'
        alts = lambda folder: [line for c in cells(folder / p) for line in source(c).splitlines() if line.startswith('#| fig-alt: ')]
        assert alts(proc) == alts(nbs), f'{p}: texts instead of pictures are lost'
        for image in re.findall(r'!\[[^]]*\]\(([^):\s]+)\)', page): assert (proc / p.parent / image).is_file(), f'{p}: no picture {image}'
        exported = '\n'.join(source(c) for c in cells(nbs / p) if re.search(r'^#\s*\|\s*exports', source(c), re.M))
        for name in re.findall(r'^(?:def|class) ([A-Za-z]\w*)', exported, re.M):
            assert re.search(rf'^#+ {name}\b', page, re.M), f'{p}: {name} is not documented on its page'

def test_configuration():
    read = lambda p: yaml.safe_load((ROOT / p).read_text(encoding='utf-8'))
    quarto, nbdev = read('_quarto.yml'), read('nbs/nbdev.yml')
    assert quarto['project']['output-dir'] == nbdev['project']['output-dir'] == '_docs' and quarto['execute'] == {'enabled': False}
    assert (ROOT / 'nbs/_quarto.yml').resolve() == ROOT / '_quarto.yml'
    assert quarto['website']['repo-subdir'] == 'nbs', 'where "view source" looks for the notebooks'
    assert all((ROOT / 'nbs' / name).is_file() for name in quarto['format']['html']['filters'])
    settings = ConfigParser(delimiters=['='])
    settings.read(ROOT / 'settings.ini', encoding='utf-8')
    assert not (ROOT / 'nbs' / settings['DEFAULT']['readme_nb']).exists(), 'nbdev_docs would write README.md over ours'
    for item in quarto['website']['navbar']['left']: assert (ROOT / 'nbs' / item['href']).is_file(), item
