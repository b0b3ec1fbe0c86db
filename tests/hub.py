"""A hub on loopback that speaks as much of the Hugging Face Hub's protocol as its own client asks for: repositories,
commits, branches, revisions, files. What the client sends is kept, and given back."""
import base64, hashlib, json, re, threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def reply(self, status=200, body=b'', **headers):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k.replace('_', '-'), v)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(data)

    def missing(self, code): self.reply(404, dict(error=f'{code}: {self.path}'), X_Error_Code=code, X_Error_Message=f'{code}: {self.path}')

    def do_POST(self):
        body, hub = self.rfile.read(int(self.headers.get('Content-Length') or 0)), self.server.hub
        if self.headers.get('Authorization') != 'Bearer right': return self.reply(401, dict(error='Invalid username or password.'))
        if self.path == '/api/validate-yaml': return self.reply(body=dict(errors=[], warnings=[]))
        if self.path == '/api/repos/create':
            told = json.loads(body)
            name = f'{told["organization"]}/{told["name"]}'
            if name in hub.repos: return self.reply(409, dict(error='You already created this model repo', url=f'{hub.address}/{name}'))
            hub.repos[name] = dict(private=told.get('private') or told.get('visibility') == 'private', branches=dict(main='0' * 40), commits={'0' * 40: {}})
            return self.reply(body=dict(url=f'{hub.address}/{name}', id=name))
        _, name, what, branch = re.fullmatch(r'(/api/models/)([^/]+/[^/]+)/(\w+)/([^/?]+).*', self.path).groups()
        repo = hub.repos[name]
        if what == 'branch': repo['branches'].setdefault(branch, repo['branches']['main']); return self.reply()
        if what == 'preupload': return self.reply(body=dict(files=[dict(path=f['path'], uploadMode='regular', shouldIgnore=False, oid=None) for f in json.loads(body)['files']]))
        files = dict(repo['commits'][repo['branches'][branch]])
        for line in map(json.loads, body.splitlines()):
            if line['key'] == 'file': files[line['value']['path']] = base64.b64decode(line['value']['content'])
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repo['commits'][sha] = files
        repo['branches'][branch] = sha
        self.reply(body=dict(success=True, commitOid=sha, commitUrl=f'{hub.address}/{name}/commit/{sha}', hookOutput=''))

    def do_GET(self):
        hub, path = self.server.hub, self.path.partition('?')[0]
        hub.asked.append(path)
        if match := re.fullmatch(r'/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?', path):
            name, what, revision = match.groups()
            if name not in hub.repos: return self.missing('RepoNotFound')
            repo = hub.repos[name]
            sha = repo['branches'].get(revision or 'main', revision)
            if sha not in repo['commits']: return self.missing('RevisionNotFound')
            files = repo['commits'][sha]
            if what == 'tree': return self.reply(body=[dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest()) for k, v in files.items()])
            return self.reply(body=dict(id=name, modelId=name, sha=sha, private=False, siblings=[dict(rfilename=k) for k in files], tags=[], downloads=0, likes=0))
        name, sha, file = re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', path).groups()
        data = hub.repos[name]['commits'][sha].get(file)
        if data is None: return self.missing('EntryNotFound')
        self.reply(body=data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=sha)
    do_HEAD = do_GET

class Hub:
    def __init__(self): self.repos, self.asked, self.address = {}, [], ''

@contextmanager
def loopback_hub():
    hub, server = Hub(), ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.hub, hub.address = hub, f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield hub
    finally: server.shutdown(); server.server_close()
