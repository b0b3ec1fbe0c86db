-- Words of the glossary become links to it where they first stand on a page. Quarto runs this filter over every page.

local words = {
  'visual reprogramming', 'source model', 'source label', 'target task', 'target label', 'label mapping', 'adapter',
  'mask generator', 'low rank', 'label counts', 'one pass', 'epoch 0', 'ladder', 'controls', 'linear probe',
  'full fine-tuning', 'test-best', 'approximation error', 'witness', 'zero-shot', 'remapped', 'shots',
  'RLM', 'FLM', 'ILM', 'OLM', 'BLM', 'BLM+', 'SeMap', 'FullyMap', 'SMM', 'LoR-VP', 'AutoVP', 'ACAVP', 'EVP',
  'CLIP', 'VP', 'TP', 'AttrVR', 'DVP', 'PRM', 'ECE',
}
local input = quarto and quarto.doc.input_file or PANDOC_STATE.input_files[1] or ''
local glossary = ((input:match('experiments/') or input:match('gallery/')) and '../' or '') .. '90_glossary.ipynb#'
local is_glossary = input:match('90_glossary') ~= nil

local function anchor(word) return 'word-' .. word:lower():gsub('+', 'plus'):gsub('[^%w]+', '-') end

local open = {} -- words that were not on this page yet
for _, word in ipairs(words) do open[word:lower()] = word end

local function word_at(inlines, i)
  -- the longest word of the glossary that begins at the i-th inline: its name, what stands there, the mark after it, its length
  local found, text = nil, ''
  for j = i, math.min(i + 2, #inlines), 2 do
    if inlines[j].t ~= 'Str' or (j > i and inlines[j - 1].t ~= 'Space' and inlines[j - 1].t ~= 'SoftBreak') then break end
    text = text .. (j > i and ' ' or '') .. inlines[j].text
    local plain, mark = text:match('^(.-)([%.,;:%)]*)$')
    local name = open[plain:lower()] or open[plain:lower():gsub('s$', '')]
    if name then found = {name = name, text = plain, mark = mark, length = j - i + 1} end
  end
  return found
end

local function linked(inlines)
  local out, i, code = pandoc.Inlines {}, 1, false
  while i <= #inlines do
    if inlines[i].t == 'RawInline' then code = inlines[i].text:match('^<code') ~= nil end
    local word = not code and word_at(inlines, i)
    if word then
      open[word.name:lower()] = nil
      out:insert(pandoc.Link(word.text, glossary .. anchor(word.name), '', {class = 'word'}))
      if word.mark ~= '' then out:insert(pandoc.Str(word.mark)) end
      i = i + word.length
    else
      out:insert(inlines[i])
      i = i + 1
    end
  end
  return out
end

-- Headings, links, tables and the list of papers stay as they are
local function stays(element) return element, false end
local function stays_as_list(div) if div.identifier == 'refs' then return div, false end end
local links = {traverse = 'topdown', Header = stays, Link = stays, Table = stays, Div = stays_as_list, Inlines = linked}

-- On the glossary's own page each of its words gets the anchor that others lead to
local anchors = {Strong = function(strong)
  local word = pandoc.utils.stringify(strong)
  return pandoc.Span(strong, {id = anchor((open[word:lower()] or open[word:lower():gsub('s$', '')] or word))})
end}

return {is_glossary and anchors or links}
