"""What a checkpoint costs beside an epoch of one second: `python nbs/experiments/checkpoint_cost.py`.

Trains with a checkpoint after every epoch, on as many random images as the embedded source takes a second for, and times
what is done for the checkpoint: the copy of the state, the file with its fsync and rename, and the rows of the log. Then a
watcher looks at the folder, and the processor time of a look is told."""
import argparse, shutil, statistics, tempfile, time
from pathlib import Path

import torch, vrlit as vr
import vrlit.train

class Timed(vrlit.train._Keeper):
    "Adds up what checkpoints take"
    spent: list[float]
    def take(self, *rows):
        start = time.perf_counter()
        super().take(*rows)
        Timed.spent.append(time.perf_counter() - start)

def trained(prompt, mapping, source, n, epochs, folder):
    g = torch.Generator().manual_seed(0)
    images = lambda k: (torch.randint(0, 256, (k, 3, 32, 32), dtype=torch.uint8, generator=g), torch.arange(k) % 10)
    task = vr.make_task('random images', images(n), images(40), val=images(40))
    model = vr.Reprogrammed(prompt(source), source, mapping(source.S, task.K))
    Timed.spent = []
    result = vr.fit(model, task, epochs=epochs, batch_size=32, lr=.01, progress=False, out=folder, overwrite=True)
    return model, [row['seconds'] for row in result.log[1:]], Timed.spent[1:-1] # between two epochs

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--size', type=int, default=224, help="side of the source's input")
    parser.add_argument('--folder', help='where to write; a temporary folder if it is not said')
    a = parser.parse_args()
    vrlit.train._Keeper = Timed
    root = Path(a.folder or tempfile.mkdtemp())
    source = vr.load_source(size=a.size)
    print(f'{source}; {torch.get_num_threads()} threads, {torch.__version__}')
    print(f'{"prompt":10} {"mapping":12} {"trained":>9} {"bytes":>10} {"epoch s":>8} {"checkpoint ms":>14} {"of 1 s":>7}')
    for prompt, mapping in ((vr.Padding, vr.ILM), (vr.Watermark, vr.BLMPlus), (vr.SMM, vr.ILM), (vr.Watermark, vr.Discriminant)):
        _, seconds, _ = trained(prompt, mapping, source, 64, 2, root / 'run')
        n = max(64, round(64 / seconds[-1]))
        model, seconds, spent = trained(prompt, mapping, source, n, a.epochs, root / 'run')
        size = max(f.stat().st_size for f in (root / 'run' / 'checkpoints').iterdir())
        numbers = sum(p.numel() for p in model.trained().values())
        told = statistics.median(spent)
        print(f'{prompt.__name__:10} {mapping.__name__:12} {numbers:9,} {size:10,} {statistics.median(seconds):8.2f} {1000 * told:14.2f} {told:7.2%}')
    start = time.process_time()
    for _ in range(20): vr.watch_table(vr.read_watched(root / 'run'))
    print(f'a look of `vrlit watch`: {1000 * (time.process_time() - start) / 20:.1f} ms of another processor, once a second')
    if not a.folder: shutil.rmtree(root)

if __name__ == '__main__': main()
