"""The picture of the page that `vrlit export --to web` writes: `python nbs/experiments/try_it.py DIST`.

Trains padding under BLM+ on the digits, exports it, drops the fourth test digit on the page in a headless Chromium, and
writes `nbs/images/try_it.png`. DIST is npm, or the dist folder of onnxruntime-web."""
import argparse, shutil, subprocess, tempfile, threading, time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import vrlit as vr
from PIL import Image

# Drops a file on the page as a hand does; a picture that takes its time holds the screenshot back
HAND = '''<script>
async function drop() {
  const held = new DataTransfer(), field = document.getElementById('drop'), state = document.getElementById('state')
  while (!state.textContent.startsWith('Ready')) await new Promise(done => setTimeout(done, 20))
  held.items.add(new File([await (await fetch('digit.png')).blob()], 'digit.png'))
  field.dispatchEvent(new DragEvent('drop', { dataTransfer: held, cancelable: true }))
}
drop()
</script><img src="slow.png" style="display: none" alt=""></body>'''

class Server(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        if self.path == '/slow.png': time.sleep(8)
        super().do_GET()

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dist', help='npm, or the dist folder of onnxruntime-web')
    parser.add_argument('--out', type=Path, default=Path(__file__).parents[1] / 'images' / 'try_it.png')
    a = parser.parse_args()
    task, source = vr.load_task('digits'), vr.load_source(size=64)
    model = vr.Reprogrammed(vr.Padding(source, inner=40), source, vr.BLMPlus(source.S, task.K))
    print(vr.fit(model, task, epochs=10, batch_size=32, lr=.03, device='cpu', progress=False))
    with tempfile.TemporaryDirectory() as tmp:
        page = Path(tmp) / 'page'
        print(vr.export(model, 'web', page, images=task.test.x, runtime=a.dist))
        Image.fromarray(task.test.x[3].permute(1, 2, 0).numpy()).save(page / 'digit.png')
        (page / 'shown.html').write_text((page / 'index.html').read_text().replace('</body>', HAND))
        with ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, directory=page)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
            subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--window-size=830,930',
                            f'--user-data-dir={tmp}/browser', f'--screenshot={tmp}/page.png',
                            f'http://127.0.0.1:{server.server_port}/shown.html'], capture_output=True, check=True)
            server.shutdown()
        Image.open(f'{tmp}/page.png').convert('RGB').quantize(128, dither=Image.Dither.NONE).save(a.out, optimize=True)

if __name__ == '__main__': main()
