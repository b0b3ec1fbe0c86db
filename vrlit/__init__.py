"Visual reprogramming, y = f_out(f_pre(f_in(x))): a frozen classifier put to a new task by what goes in and out."
__version__ = "0.1.0"

# A public name is found through nbdev's index and its module imported when the name is first used (PEP 562):
# `import vrlit` costs milliseconds, and a new method is in reach as `vrlit.Name` once its notebook is exported, with no
# line to add here.

def _homes():
    "Public name -> its module. Submodules and subpackages are names, too, the command line's functions are not."
    from ._modidx import d
    homes = {}
    for module, symbols in d['syms'].items():
        names = [] if module == 'vrlit.cli' else [s.removeprefix(module + '.') for s in symbols]
        homes.update({n: module for n in names if '.' not in n and n[0] != '_'})
        if (name := module.split('.')[1])[0] != '_': homes[name] = ''
    return homes

def __getattr__(name):
    from importlib import import_module
    homes = _homes()
    if name == '__all__': return sorted(homes)
    if name not in homes:
        from difflib import get_close_matches
        near = ''.join(f', did you mean {n!r}?' for n in get_close_matches(name, homes, 1))
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}{near}', name=name)
    value = getattr(import_module(homes[name]), name) if homes[name] else import_module(f'{__name__}.{name}')
    import_module(f'{__name__}.help_texts').add_parameters(value)
    globals()[name] = value
    return value

# What `vr.<TAB>` offers: what makes, trains, shows and keeps a model, and every prompt and mapping; `__all__` has all
_OFFERED = '''load_source load_task load_clip list_sources list_tasks Reprogrammed Resized fit evaluate compare ladder
TextSource text_prompts AttrVR PRM Decoupled predict report show show_equation save_run load_run from_pretrained export
grid table reproduce auto watch'''.split()
_PARTS_OF_MAPPINGS = 'Counts', 'Moments', 'Mapping' # what they are made from

def __dir__():
    methods = {n for n, home in _homes().items() if home.startswith(('vrlit.prompts.', 'vrlit.mappings.'))
               and n[0].isupper() and not n.endswith(_PARTS_OF_MAPPINGS)}
    return sorted({*_OFFERED, *methods, *(n for n in globals() if n.startswith('__'))})
