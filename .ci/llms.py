"nbs/llms.txt, the site's contents for programs: `python .ci/llms.py` writes it, with --check it only tells if it is out of date (exit 1)"
import json, re, sys
from pathlib import Path

import yaml

nbs = Path(__file__).resolve().parents[1]/'nbs'
site = yaml.safe_load((nbs/'nbdev.yml').read_text())['website']['site-url']

def page(name):
    "One line: the title with its address, and what the page is"
    title, _, line = ''.join(json.loads((nbs/name).read_text(encoding='utf-8'))['cells'][0]['source']).partition('\n\n> ')
    address = re.sub(r'(^|/)\d+[a-z0-9]*_', r'\1', name).replace('.ipynb', '.html') # a page drops its number
    return f'- [{title[2:]}]({site}/{address}): {line}'

def llms():
    sections = yaml.safe_load((nbs/'sidebar.yml').read_text())['website']['sidebar']['contents']
    parts = [f'## {s["section"]}\n\n' + '\n'.join(map(page, s['contents'])) for s in sections]
    about = yaml.safe_load((nbs/'nbdev.yml').read_text())['website']['description']
    return '\n\n'.join([f'# vrlit\n\n> {about}.', *parts]) + '\n'

if __name__ == '__main__':
    file, new = nbs/'llms.txt', llms()
    if '--check' not in sys.argv: file.write_text(new, encoding='utf-8')
    elif not file.exists() or file.read_text(encoding='utf-8') != new:
        sys.exit('nbs/llms.txt is not what the pages say: run `python .ci/llms.py`')
