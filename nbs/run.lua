-- Each page is a notebook: a line at its top says where it can be run. Quarto runs this filter over every page.
local input = quarto and quarto.doc.input_file or PANDOC_STATE.input_files[1] or ''
local page = (input:match('experiments/[^/]+$') or input:match('gallery/[^/]+$') or input:match('[^/]+$') or ''):gsub('%.%w+$', '') .. '.ipynb'
local places = 'https://colab.research.google.com/github/vrlit/vrlit/blob/main/nbs/%s Colab '
            .. 'https://mybinder.org/v2/gh/vrlit/vrlit/main?labpath=nbs/%s Binder '
            .. 'https://raw.githubusercontent.com/vrlit/vrlit/main/nbs/%s Download'

function Pandoc(doc)
  if input:match('%.qmd$') then return end -- no notebook
  local line = pandoc.List {pandoc.Str 'Run this page: '}
  for address, name in places:gmatch('(%S+) (%S+)') do
    line:extend {pandoc.Link(name, address:format(page)), pandoc.Str ' · '}
  end
  line:insert(pandoc.Link('how', (page:match('/') and '../' or '') .. '47y_notebooks.ipynb'))
  doc.blocks:insert(1, pandoc.Div(pandoc.Para(line), {class = 'run'}))
  return doc
end
