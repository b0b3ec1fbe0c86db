"The site's pages, as far as they are made without Quarto: by nbdev, then by pandoc, which is what Quarto calls, with the site's own filters and style"
import base64, csv, json, posixpath, re, shutil, subprocess
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path

import nbformat, pypandoc, pytest, yaml
from browser import BROWSER, told_by
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / 'nbs'
PAGES = sorted(NBS.rglob('*.ipynb'))
each = pytest.mark.parametrize('path', PAGES, ids=lambda p: p.relative_to(NBS).with_suffix('').as_posix())

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
    for name in '_quarto.yml nbdev.yml sidebar.yml styles.css fold.lua glossary.lua run.lua references.bib numbered.csl llms.txt 404.qmd changelog.qmd images/favicon.png'.split(): assert (proc / name).is_file(), name
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
    html = rendered(proc)
    check_text_and_links(html)
    check_sizes(html)
    check_in_a_browser(html)

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
    for name in (quarto['bibliography'], quarto['csl'], quarto['website']['favicon'], quarto['website']['image'], *quarto['project']['resources']):
        assert (NBS / name).is_file(), name
    assert f'vrlit {settings["DEFAULT"]["version"]} ' in quarto['website']['page-footer']['left']

# ---- as a reader sees them: Markdown by nbconvert, HTML by pandoc ----------------------------------------------------------

FRAME = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/styles.css">
<body style="font-family: sans-serif"><main>{}</main>"""

def rendered(proc):
    "{page: its HTML file}, in a folder of their own"
    to = proc.parent / 'html'
    for folder in 'experiments', 'gallery': shutil.copytree(proc / folder, to / folder, ignore=shutil.ignore_patterns('*.ipynb', '*.csv'))
    shutil.copy(proc / 'styles.css', to)
    options = '--from=markdown-implicit_figures --to=html --mathml --citeproc --metadata=link-citations --fail-if-warnings'.split()
    options += ['--csl=numbered.csl', '--bibliography=references.bib', *(f'--lua-filter={name}' for name in yaml.safe_load((proc / '_quarto.yml').read_text(encoding='utf-8'))['format']['html']['filters'])]
    def one(page):
        text, resources = MarkdownExporter().from_notebook_node(nbformat.v4.reads((proc / page).read_text(encoding='utf-8')))
        for name, image in resources['outputs'].items(): text = text.replace(f']({name})', f'](data:image/png;base64,{base64.b64encode(image).decode()})')
        (proc / page).with_suffix('.md').write_text(text, encoding='utf-8')
        res = subprocess.run([pypandoc.get_pandoc_path(), *options, page.with_suffix('.md').as_posix()], cwd=proc, capture_output=True, encoding='utf-8')
        assert not res.returncode, f'{page}: {res.stderr}'
        file = (to / page).with_suffix('.html')
        file.write_text(FRAME.format(res.stdout), encoding='utf-8')
        return page.as_posix(), file
    with ThreadPoolExecutor(2) as two: return dict(two.map(one, sorted(p.relative_to(proc) for p in proc.rglob('*.ipynb'))))

class Read(HTMLParser):
    "The text of a page outside code and formulas, its anchors and its links"
    QUIET = 'pre', 'code', 'math', 'style', 'script'
    def __init__(self, file):
        super().__init__()
        self.text, self.anchors, self.links, self.quiet = '', set(), [], 0
        self.feed(file.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.anchors.add(told.get('id'))
        if tag == 'a' and 'href' in told: self.links.append(told['href'])
        self.quiet += tag in self.QUIET
    def handle_endtag(self, tag): self.quiet -= tag in self.QUIET
    def handle_data(self, data):
        if not self.quiet: self.text += data

def check_text_and_links(html):
    pages = {page: Read(file) for page, file in html.items()}
    for page, read in pages.items():
        leaks = re.findall(r'.{,40}(?:\]\(|`|\[@|\*\*|\$\$).{,40}', read.text)
        assert not leaks, f'{page}: Markdown that was not understood: {leaks}'
        for link in read.links:
            file, _, anchor = link.partition('#')
            if re.match(r'\w+:', link): continue
            to = posixpath.normpath(posixpath.join(posixpath.dirname(page), file)) if file else page
            assert (NBS / to).is_file(), f'{page}: no file {link}'
            assert not anchor or anchor in pages[to].anchors, f'{page}: no place {link}'
    colab = 'https://colab.research.google.com/github/vrlit/vrlit/blob/main/nbs/'
    for page, read in pages.items(): assert colab + page in read.links, page
    smm = pages['12_smm.ipynb']
    assert {'90_glossary.ipynb#word-approximation-error', '#ref-cai2024smm'} <= {*smm.links} and 'ref-cai2024smm' in smm.anchors, 'a word, a paper'

def check_sizes(html):
    for page, file in html.items(): assert file.stat().st_size < 1_500_000, f'{page}: {file.stat().st_size:,} bytes'

# what a page in a browser is asked: is anything wider than a phone, and is any text too pale on either theme's background
LOOK = """<!doctype html><iframe width="390" height="800" style="border: 0"></iframe><script>
const frame = document.querySelector('iframe'), wide = {}, pale = {}
const themes = {light: 'body { background: #fff; color: #373a3c }', dark: 'body { background: #222; color: #fff } a { color: #00bc8c }'}
const load = page => new Promise(done => { frame.onload = done; frame.src = page })
const over = e => e.getBoundingClientRect().right > 390.5
const color = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a] }
const laid = ([r, g, b, a], on) => [r, g, b].map((v, i) => v * a + on[i] * (1 - a))
const light = rgb => { // relative luminance, WCAG 2
  const [r, g, b] = rgb.map(v => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4)
  return .2126 * r + .7152 * g + .0722 * b
}
function contrast(e) {
  const style = (x, key) => frame.contentWindow.getComputedStyle(x)[key]
  const up = []; for (let x = e; x && x.tagName != 'HTML'; x = x.parentElement) up.unshift(x)
  const on = up.reduce((below, x) => laid(color(style(x, 'backgroundColor')), below), [255, 255, 255])
  const [r, g, b_, alpha] = color(style(e, 'color')), shown = up.reduce((a, x) => a * style(x, 'opacity'), alpha)
  const [a, b] = [light(laid([r, g, b_, shown], on)), light(on)]
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
}
function palest(page, document) {
  const theme = document.head.appendChild(document.createElement('style'))
  document.head.prepend(theme)
  for (const [name, css] of Object.entries(themes)) {
    document.body.className = 'quarto-' + name; theme.textContent = css
    for (const e of document.body.querySelectorAll('*')) {
      const says = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())
      if (says && e.getClientRects().length && contrast(e) < 4.5) (pale[name + ': ' + e.outerHTML.slice(0, 80)] ||= []).push(page)
    }
  }
}
async function all(pages) {
  for (const page of pages) {
    await load(page)
    const {documentElement: root, body} = frame.contentDocument
    if (root.scrollWidth > 390) wide[page] = [root.scrollWidth, ...[...body.querySelectorAll('*')]
      .filter(e => over(e) && ![...e.children].some(over)).slice(0, 4).map(e => e.tagName + ': ' + e.textContent.trim().slice(0, 60))]
    palest(page, frame.contentDocument)
  }
  await fetch('/', {method: 'POST', body: JSON.stringify([pages.length, wide, pale])})
}
all(PAGES)
</script>"""

def check_in_a_browser(html):
    "No page is wider than 390 pixels, what is wider scrolls by itself; and all text can be read, on white and on dark"
    if not BROWSER: pytest.skip('all else is right; widths and colours need Chromium')
    folder = html['index.ipynb'].parent
    pages = [file.relative_to(folder).as_posix() for file in html.values()]
    (folder / 'look.html').write_text(LOOK.replace('PAGES', json.dumps(pages)))
    told = told_by(folder, 'look.html', folder / 'browser')
    assert told == [len(pages), {}, {}], told

# ---- what the pages name -----------------------------------------------------------------------------------------------

def prose(path): return '\n'.join(source(c) for c in cells(path) if c['cell_type'] == 'markdown')
def papers():
    text = (NBS / 'references.bib').read_text(encoding='utf-8')
    return {key: body for key, body in re.findall(r'^@\w+\{(\w+),\n(.*?)^\}', text, re.M | re.S)}

@each
def test_papers(path):
    "Every citation is in references.bib, and a linked paper is cited"
    known, text = papers(), prose(path)
    cited = set(re.findall(r'(?<!`)\[@(\w+)\]', text))
    assert cited <= known.keys(), f'not in references.bib: {cited - known.keys()}'
    linked = {key for key, body in known.items() if (url := re.search(r'url *= \{(.*)\}', body)) and url[1] in text}
    assert linked <= cited, f'linked, and not cited as [@key]: {linked - cited}'
    others = set(re.findall(r'https://arxiv.org/abs/[\d.]+\d', text)) - {re.search(r'url *= \{(.*)\}', known[key])[1] for key in linked}
    assert not others, f'papers that are not in references.bib: {others}'

def test_every_paper_is_named_on_a_page_and_listed_with_it():
    named = {path: set(re.findall(r'(?<!`)\[@(\w+)\]', prose(path))) for path in PAGES}
    assert set.union(*named.values()) == papers().keys()
    listed = '\n'.join(''.join(o.get('data', {}).get('text/markdown', '')) for c in cells(NBS / '91_references.ipynb') for o in c.get('outputs', []))
    rows = {m[1]: set(re.findall(r'\]\(([\w/]+\.ipynb)\)', m[2])) for m in re.finditer(r'^- .*`(\w+)`, in (.*)$', listed, re.M)}
    wanted = {key: {p.relative_to(NBS).as_posix() for p in PAGES if key in named[p]} for key in papers()}
    assert rows == wanted, 'run 91_references.ipynb again'

def test_every_name_is_in_the_list():
    import vrlit as vr
    listed = '\n'.join(''.join(o.get('data', {}).get('text/markdown', '')) for c in cells(NBS / '92_api.ipynb') for o in c.get('outputs', []))
    names = {name for name in vr.__all__ if getattr(vr, name).__class__.__name__ != 'module'}
    assert set(re.findall(r'^\| \[(\w+)\]', listed, re.M)) == names, 'run 92_api.ipynb again'

@each
def test_before_and_after(path):
    "What to read before and after a page, how long it takes, and where it leads"
    if path.stem == 'index': return
    line = re.search(r'^\*Before this\*: (.+) · \*After it\*: (.+) · \*To read\*: (\d+) min · \*To run\*: (some seconds|15 s|half a minute)$', prose(path), re.M)
    assert line, 'the line below the title: *Before this*: [a page](file) · *After it*: ... · *To read*: 5 min · *To run*: some seconds'
    assert all(re.findall(r'\[[^]]+\]\([\w./]+\.ipynb\)', part) for part in line.groups()[:2])
    text = prose(path).replace(line[0], '')
    lines = sum(bool(row.strip()) for c in cells(path) if c['cell_type'] == 'code' for row in c['source'])
    minutes = len(text.split()) / 200 + lines / 40
    assert abs(int(line[3]) - minutes) <= max(1, .15 * minutes), f'{minutes:.1f} minutes at 200 words and 40 lines of code a minute'

# a number with its unit, or a decimal, outside of code, formulas, links and what is cited; and a number anywhere on a page
CLAIM = re.compile(r'(?<![\w.,@\[/-])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)( ?%| points?\b| seconds\b| s\b| times\b| [kMG]B\b)?')
NUMBER = re.compile(r'\d*(?:,\d{3})*\.?\d+(?:e-?\d+)?')
NO_PROSE = re.compile(r'```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<[^>]*>|\[@[^]]*\]|arXiv \S+|version \S+|\*Before this\*.*?$', re.S | re.M)

def numbers(text): return {float(m.replace(',', '')) for m in NUMBER.findall(text)}
def outputs(cell): return '\n'.join(''.join(o.get('text', '')) + ''.join(v for k, t in o.get('data', {}).items() if k.startswith('text') for v in t)
                                   for o in cell.get('outputs', []))
def is_among(claim, unit, known):
    "Whether it is one of these, rounded as it is written; 80 % is also 0.8"
    value, half = float(claim.replace(',', '')), .5 * 10 ** -len(claim.partition('.')[2]) + 1e-9
    return any(abs(scale * v - value) <= half for v in known for scale in ((1, 100) if unit == ' %' else (1,)))

def quoted():
    "What pages quote, and from where: `{page: [(numbers, source)]}`"
    rows = {}
    with open(ROOT / 'tests/quoted.csv', newline='', encoding='utf-8') as f:
        for row in csv.DictReader(f): rows.setdefault(row['page'], []).append((row['numbers'].split(), row['from']))
    return rows

def claims(path): return [m.groups() for m in CLAIM.finditer(NO_PROSE.sub('', '\n\n'.join(source(c) for c in cells(path) if c['cell_type'] == 'markdown')))
                          if m[2] or '.' in m[1]]

@each
def test_every_number_in_prose_is_computed_or_quoted(path):
    "In the page's code or outputs, or in quoted.csv with its source; and where the source is a file of ours, in that file"
    known = numbers('\n'.join(source(c) + outputs(c) for c in cells(path) if c['cell_type'] == 'code'))
    rows = quoted().get(path.stem, [])
    told = {n for row, _ in rows for n in row}
    missing = [n for n, unit in claims(path) if n not in told and not is_among(n, unit, known)]
    assert not missing, f'{missing}: not in an output of the page, and not in tests/quoted.csv'
    assert told <= {n for n, _ in claims(path)}, f'quoted, and not on the page: {told - {n for n, _ in claims(path)}}'
    for row, where in rows:
        if (file := ROOT / where.split(',')[0]).is_file():
            there = numbers(file.read_text(encoding='utf-8').rpartition('[published]')[2])
            assert not (wrong := [n for n in row if not is_among(n, ' %', there)]), (where, wrong)

def test_the_front_pages_table():
    "Means of the rows that the experiment keeps"
    def rows(name):
        with open(NBS / f'experiments/{name}.csv', newline='', encoding='utf-8') as f:
            return [r for r in csv.DictReader(f) if (r['task'], r['source']) == ('cifar10', 'embedded')]
    ladder, prompted = rows('one_pass'), rows('one_pass_prompts')
    def rung(method, control): return [float(r['test']) for r in ladder if (r['method'], r['control']) == (method, str(control))]
    def trained(mapping): return [float(max(tried, key=lambda r: float(r['val']))['test']) for seed in '012'
                                  if (tried := [r for r in prompted if (r['prompt'], r['mapping'], r['seed']) == ('watermark', mapping, seed)])]
    found = {'chance': rung('chance', True), 'pixels, discriminant': rung('pixels, discriminant', True), 'random weights, discriminant': rung('discriminant', True),
             'BLM+': rung('BLM+', False), 'discriminant': rung('discriminant', False), 'linear probe': rung('linear probe', False),
             'full watermark, ILM': trained('ILM'), 'full watermark, discriminant': trained('discriminant')}
    page = prose(NBS / 'index.ipynb')
    for name, draws in found.items():
        assert len(draws) == 3 and f'| {name} | {100 * sum(draws) / 3:.1f} % |' in page, (name, draws)

def test_glossary_links_lead_to_words_of_the_glossary():
    words = re.findall(r"'([^']+)'", re.search(r'local words = \{(.*?)\n\}', (NBS / 'glossary.lua').read_text(encoding='utf-8'), re.S)[1])
    told = {word.lower().removesuffix('s') for word in re.findall(r'\*\*(.+?)\*\*', prose(NBS / '90_glossary.ipynb'))}
    assert len(words) > 30 and not [word for word in words if word.lower().removesuffix('s') not in told]

def test_contents_for_programs(python): python('.ci/llms.py', '--check', cwd=ROOT)
