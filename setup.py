"Everything is read from settings.ini, which nbdev reads too"
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
pythons = ('3.10', '3.11', '3.12', '3.13')
status = {'3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}[cfg['status']]

class WithPages(build_py):
    "And the notebooks in nbs/, with what they read: `vrlit notebooks` copies them out of the package"
    def run(self):
        super().run()
        read = [f'{folder}/*.{kind}' for folder in ('experiments', 'gallery') for kind in ('ipynb', 'csv', 'toml')]
        kinds = '*.ipynb', '*.bib', 'images/*.png', *read
        for file in () if getattr(self, 'editable_mode', False) else (f for kind in kinds for f in Path('nbs').glob(kind)):
            to = Path(self.build_lib, 'vrlit', file)
            to.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(file), str(to))

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    classifiers=[f'Development Status :: {cfg["status"]} - {status}', f'Intended Audience :: {cfg["audience"]}',
                 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Typing :: Typed',
                 *(f'Programming Language :: Python :: {v}' for v in pythons)],
    python_requires=f'>={cfg["min_python"]}',
    packages=find_packages(include=['vrlit', 'vrlit.*']),
    package_data={'vrlit': ['py.typed', '*.pyi', *(f'data/*.{kind}' for kind in 'safetensors json html toml npz md'.split())]},
    install_requires=cfg['requirements'].split(),
    cmdclass=dict(build_py=WithPages),
    extras_require={name: cfg[f'{name}_requirements'].split() for name in (
        'datasets', 'tensorboard', 'onnx', 'ray', 'search', 'accelerate', 'notebooks', 'dev')},
    entry_points={'console_scripts': ['vrlit=vrlit.cli:app'],
                  'nbdev': [f'{cfg["lib_path"]}={cfg["lib_path"]}._modidx:d']},
    zip_safe=False,
)
