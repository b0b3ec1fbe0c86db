"Tables and pictures of rows: by hand, from files, on the command line"
import csv, io, math, re, shutil, subprocess, sys

import numpy as np, pandas as pd, pytest, vrlit as vr
from conftest import forked
from scipy.stats import wilcoxon

def rows(n=7, prompts=('pad', 'SMM', 'odd_name & 5%'), seed=0):
    rng = np.random.default_rng(seed)
    return [dict(task=t, prompt=p, seed=str(s), test_acc=rng.uniform(), last_test_acc=rng.uniform(), seconds=rng.uniform(1, 50), trained=100 * (i + 1), epochs=3, diverged=None)
            for t in ('digits', 'squares', 'gtsrb') for i, p in enumerate(prompts) for s in range(n)]

@pytest.mark.parametrize('value, epoch', [('test_acc', 'selected'), ('test_acc', 'last'), ('seconds', 'selected'), ('trained', 'last')])
def test_equal_to_pandas(value, epoch):
    column = 'last_test_acc' if (value, epoch) == ('test_acc', 'last') else value
    found, frame = vr.table(rows(), value=value, epoch=epoch), pd.DataFrame(rows())
    read = pd.read_csv(io.StringIO(found.text('csv')), index_col=0)
    for how, end in (('mean', ''), ('std', ' std'), ('count', ' n')):
        want = frame.pivot_table(index='prompt', columns='task', values=column, aggfunc=how)
        for task in want.columns: assert np.allclose(read[f'{task}{end}'], want[task][read.index], rtol=1e-12, equal_nan=True)
    seeds = frame.groupby(['prompt', 'seed'])[column].mean()
    assert np.allclose(read['average'], seeds.groupby('prompt').mean()[read.index])
    assert np.allclose(read['average std'], seeds.groupby('prompt').std()[read.index])

def test_bold_is_what_beats_each_other():
    gain = {'a': .2, 'b': .1, 'c': .0}
    rng = np.random.default_rng(1)
    told = [dict(task=t, prompt=p, seed=s, test_acc=.5 + g + rng.normal(0, .01)) for t in 'xy' for p, g in gain.items() for s in range(8)]
    found = vr.table(told)
    assert all(found.cells['a', col].bold for col in found.cols) and sum(cell.bold for cell in found.cells.values()) == 3
    d = [found.cells['a', 'x'].values[s] - found.cells['b', 'x'].values[s] for s in found.cells['a', 'x'].values]
    assert vr.paired_p(d, np.zeros(len(d))) == pytest.approx(wilcoxon(d).pvalue)
    few = vr.table([row for row in told if row['seed'] < 3])
    assert [key for key, cell in few.cells.items() if cell.bold] == [('a', 'average')] # 3 pairs in a column, 6 in the average
    assert 'which takes at least 6' in few.caption
    slow = vr.table([row | dict(seconds=1 - row['test_acc']) for row in told], value='seconds')
    assert slow.cells['a', 'x'].bold # less is better
    assert sum(cell.bold for cell in vr.table(told, test='bootstrap').cells.values()) == 3

def test_missing_and_fewer_and_diverged():
    told = [row for row in rows(3) if (row['task'], row['prompt']) != ('digits', 'pad') and (row['task'], row['prompt'], row['seed']) != ('squares', 'SMM', '1')]
    told[0]['diverged'] = 'the loss became nan'
    found = vr.table(told)
    lines = found.text('md').splitlines()
    assert '| pad |' in ''.join(lines) and '–' in next(line for line in lines if line.startswith('| pad'))
    assert ('pad', 'average') not in found.cells
    assert '(2)' in next(line for line in lines if line.startswith('| SMM'))
    assert f'1 of {len(told)} runs diverged' in found.caption
    apart = vr.table([row for row in rows(3) if (row['task'], row['prompt']) in (('digits', 'pad'), ('squares', 'SMM'))]) # as of a grid that has begun
    assert apart.text('md').count('–') == 4 and not any(cell.bold for cell in apart.cells.values())
    single = vr.table([row for row in told if row['seed'] == '0'])
    assert '±' not in single.text('md').split('\n\n')[0]

def test_the_deviation_of_an_average_is_that_of_whole_seeds():
    told = [dict(task=t, prompt='pad', seed=s, test_acc=a) for t, s, a in (('easy', 0, .9), ('hard', 0, .1), ('easy', 1, .8), ('hard', 1, .2), ('easy', 2, .7))]
    cell = vr.table(told).cells['pad', 'average']
    assert cell.mean == pytest.approx((.8 + .15) / 2) and cell.std == pytest.approx(0)

def test_latex(tmp_path):
    tex = vr.table(rows()).text('tex')
    lines = tex.splitlines()
    assert lines[0].startswith('% ') and lines[1] == r'\begin{tabular}{lrrrr}' and lines[-1] == r'\end{tabular}'
    body = [line for line in lines if line.endswith(r'\\')]
    assert len(body) == 4 and {len(re.findall(r'(?<!\\)&', line)) for line in body} == {4}
    assert r'odd\_name \& 5\%' in tex and tex.count('{') == tex.count('}')
    if shutil.which('pdflatex') is None: pytest.skip('its structure was checked; there is no pdflatex to compile it')
    (tmp_path / 't.tex').write_text('\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n' + tex + '\n\\end{document}\n')
    done = subprocess.run(['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 't.tex'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / 't.pdf').exists(), done.stdout[-800:]

def test_html_is_safe():
    told = [row | dict(prompt='<b>x</b>') if row['prompt'] == 'pad' else row for row in rows()]
    assert '&lt;b&gt;x' in vr.table(told)._repr_html_() and '<b>x' not in vr.table(told)._repr_html_()

def test_ranks():
    told = [dict(task=f't{t}', prompt=p, seed=0, test_acc=a) for t in range(10) for p, a in dict(a=.9, b=.8, c=.8, d=.1).items()]
    ranks, cd, p = vr.mean_ranks(told)
    assert ranks == dict(a=1, b=2.5, c=2.5, d=4) and p < 1e-4
    assert cd == pytest.approx(2.569 * math.sqrt(4 * 5 / 60), abs=1e-3)
    assert vr.mean_ranks([row | dict(seconds=1 / row['test_acc']) for row in told], value='seconds')[0] == ranks

def test_costs_of_five_tasks_and_a_method_that_one_lacks():
    told = [row | dict(task=f'{row["task"]}{k}') for row in rows(2) for k in 'ab'][:-6]
    told = [row for row in told if (row['task'], row['prompt']) != ('digitsa', 'pad')]
    told[0]['seconds'] = told[1]['seconds'] = None
    figure, n = vr.plot_costs(told), len({row['task'] for row in told})
    assert len(figure.axes) == n > 4 and n % 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['pad', 'SMM', 'odd_name & 5%']

def command_line(*args):
    sys.argv = ['vrlit', *args]
    from vrlit.cli import app
    app()

def test_from_files_and_the_command_line(tmp_path):
    grid = dict(grid=dict(task=['digits', 'squares'], prompt=['Padding', 'Watermark', 'SMM'], seed=[0, 1]), source='embedded(size=32)', at_most=[60, 20, 20], epochs=1, batch_size=30, lr=.03,
                device='cpu', layout='loaded')
    db, flat = tmp_path / 'g.db', tmp_path / 'g.csv'
    vr.grid(grid, db, workers=0, progress=False)
    code, out, err = forked(command_line, 'table', str(db), '--flat')
    assert code == 0, err
    flat.write_text(out)
    assert vr.table(flat).text() == vr.table(db).text() and 'average' in vr.table(db).text()
    assert [list(row) for row in csv.DictReader(io.StringIO(out))][0][:3] == ['task', 'prompt', 'seed']
    for kind in 'md', 'tex', 'csv': assert forked(command_line, 'table', str(flat), f'--{kind}', '--epoch', 'last')[1].strip() == vr.table(db, epoch='last').text(kind)
    code, out, err = forked(command_line, 'table', str(flat), '--where', 'task=digits', '--no-average')
    assert code == 0 and 'digits' in out and 'squares' not in out
    for kind in 'seconds', 'trained', 'ranks':
        code, out, err = forked(command_line, 'plot', str(db), kind, '--out', str(tmp_path / f'{kind}.png'))
        assert code == 0 and (tmp_path / f'{kind}.png').read_bytes()[1:4] == b'PNG', err
    for args, told in {('table', str(db), '--md', '--tex'): 'expected one of them', ('table', str(db), '--rows', 'promt'): "got 'promt'", ('table', str(db), '--where', 'task'): 'expected AXIS=NAME',
                       ('table', str(tmp_path / 'none.db')): 'there is no file', ('plot', str(db), 'pie'): 'against: expected', ('table', str(flat), '--epoch', 'best'): 'epoch: expected'}.items():
        code, out, err = forked(command_line, *args)
        assert code == 2 and err.startswith('error: ') and told in err, (args, err)
