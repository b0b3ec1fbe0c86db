"A real Chromium, a folder served on loopback, and what a page in it sends back"
import json, shutil, subprocess, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)

class Server(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_POST(self):
        self.server.told = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

def told_by(folder, page, profile):
    "What `page` in `folder` posts, as JSON; `profile` is a folder for the browser"
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, directory=folder)) as server:
        server.done = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        child = subprocess.Popen([BROWSER, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={profile}', '--remote-debugging-port=0',
                                  f'http://127.0.0.1:{server.server_port}/{page}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try: assert server.done.wait(120), f'{page} did not answer'
        finally:
            child.kill()
            child.wait()
            server.shutdown()
    return server.told
