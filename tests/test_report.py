"The report: its numbers are scikit-learn's, and the page shows in a browser what the files do not have"
import re, shutil, subprocess, warnings

import numpy as np, pytest, torch, vrlit as vr
from sklearn import metrics
from test_cli import vrlit
from test_doors import data, model, quick

@pytest.fixture(scope='module')
def told():
    m, task = model(), vr.make_task('t', data(), data(100, seed=1), labels=['a', 'b', '<i>c</i>', 'd'])
    done = vr.compare(m, task, 'random', **quick)
    return vr.report(m, task=task, result=done)

def test_numbers(told):
    y, said = told.y.numpy(), told.said.numpy()
    assert told.accuracy == pytest.approx(metrics.accuracy_score(y, said)) == pytest.approx(vr.evaluate(told.model, told.task.test).accuracy)
    assert told.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, said))
    assert (told.confusion() == metrics.confusion_matrix(y, said)).all() and told.confusion().sum() == 100
    for k, row in enumerate(vr.per_label(told)):
        assert row['images'] == 25 and row['accuracy'] == pytest.approx((said[y == k] == k).mean())
        assert np.isnan(row['precision']) if not (said == k).any() else row['precision'] == pytest.approx((y[said == k] == k).mean())
    assert str(told).startswith(f't, test: {told.accuracy:.1%} of 100 images right, balanced {told.balanced_accuracy:.1%}')
    pairs = vr.worst_confusions(told, 99)
    assert sum(len(i) for _, _, i in pairs) == (y != said).sum()
    for t, s, i in pairs: assert (y[i] == t).all() and (said[i] == s).all() and (told.p[i, s].diff() <= 0).all()
    lengths = [len(i) for _, _, i in pairs]
    assert lengths == sorted(lengths, reverse=True)

@pytest.mark.parametrize('seed', range(3))
def test_calibration(seed):
    "By the formula, bin by bin; at an edge, too"
    g = torch.Generator().manual_seed(seed)
    c, right = torch.rand(200, generator=g), torch.rand(200, generator=g) < .6
    c[:5] = torch.tensor([0., 1 / 15, 7 / 15, 1., .5])
    accuracy, mean, n = vr.calibration(right, c)
    edges = np.linspace(0, 1, 16)
    b = np.searchsorted(edges[1:-1], c.numpy())
    want = sum(abs(right.numpy()[b == k].mean() - c.numpy()[b == k].mean()) * (b == k).mean() for k in range(15) if (b == k).any())
    assert (n * abs(accuracy - mean)).sum() / n.sum() == pytest.approx(want, abs=1e-6) and n.sum() == 200

def test_a_perfect_model_and_a_label_that_never_occurs(told, tmp_path):
    m, task = told.model, vr.make_task('t', data(), (data(80, seed=1)[0][:3], torch.tensor([0, 1, 1])), labels=list('abcd'))
    perfect = vr.Report(m, task, 'test', torch.eye(4)[[0, 1, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert perfect.accuracy == perfect.balanced_accuracy == 1 and perfect.ece == 0 and vr.draw_mistakes(perfect) is None
        page = vr.write_report(perfect, tmp_path / 'page.html').read_text()
    assert 'The worst confusions' not in page and 'No control was trained' in page

def test_the_page_stands_alone(told, tmp_path):
    page = vr.write_report(told, tmp_path / 'deep' / 'page.html').read_text()
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['page.html']
    assert not re.search(r'(src|href)="(?!data:)', page) and '<i>c</i>' not in page and '&lt;i&gt;c&lt;/i&gt;' in page
    titles = re.findall('<h2>(.*?)</h2>', page)
    assert titles == ['Numbers', 'Controls', 'Training', 'Pattern and prompted images', 'Mapping', 'Confusions and reliability', 'The worst confusions', 'Labels']
    assert f'{told.accuracy:.1%}' in page and f'{told.done.controls["random"].selected["test_acc"]:.1%}' in page and 'alt=""' not in page

def test_in_a_browser(told, tmp_path):
    "Chromium lays the page out: all pictures have a size, nothing is wider than the window"
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not browser: pytest.skip('needs Chromium')
    page = vr.write_report(told, tmp_path / 'page.html')
    probe = '<script>document.title = JSON.stringify([[...document.images].map(i => i.naturalWidth), document.documentElement.scrollWidth <= innerWidth])</script>'
    page.write_text(page.read_text().replace('</body>', probe + '</body>'))
    res = subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "browser"}', '--window-size=1100,900', '--dump-dom', str(page)],
                         capture_output=True, text=True, timeout=120)
    found = re.search(r'<title>\[\[([\d,]+)\],(true|false)\]</title>', res.stdout)
    assert found and all(int(w) > 300 for w in found[1].split(',')) and len(found[1].split(',')) == 4 and found[2] == 'true', res.stdout[:300] + res.stderr[-500:]

def test_doors(told, tmp_path):
    with pytest.raises(TypeError, match='run: expected a run, its folder, or a model and its task=, got Reprogrammed'): vr.report(told.model)
    with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'all'"): vr.report(told.model, 'all', task=told.task)
    with pytest.raises(ValueError, match='task: expected the labels that the model was trained on'): vr.report(told.model, task=vr.load_task('digits'))

def test_on_the_command_line(tmp_path):
    from conftest import some_pictures
    some_pictures(tmp_path / 'pile')
    vrlit('train', 'pile', '--epochs', 1, '--batch-size', 16, '--control', 'random', '--out', 'run', '-q', cwd=tmp_path)
    run = vr.load_run(tmp_path / 'run')
    assert list(run.controls) == ['random'] and run.comparison.controls['random'].log
    out, _ = vrlit('eval', 'run', '--report', 'out.html', '--split', 'val', cwd=tmp_path)
    page = (tmp_path / 'out.html').read_text()
    assert 'val, 5 images' in page and 'the same training with' in page and 'accuracy' in out
