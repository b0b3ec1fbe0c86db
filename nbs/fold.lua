-- What nbdev hands to Quarto, made readable. Quarto runs this filter over every page.

-- Exported cells come with their source open (`code-fold: show`), below a signature that says the same: they start
-- folded, one click away. The pages under experiments/, and Which method?, are about results, and fold all of their code.
local input = quarto and quarto.doc.input_file or PANDOC_STATE.input_files[1] or ''
local is_about_results = input:match('experiments/') ~= nil or input:match('000_which') ~= nil

function CodeBlock(block)
  if block.classes:includes('cell-code') then
    local fold = block.attributes['code-fold']
    if fold == 'show' or (is_about_results and not fold) then block.attributes['code-fold'] = 'true' end
  end
  -- nbdev turns a backticked name into a link, also in the comments of a signature, where no link can be
  block.text = block.text:gsub('%[(`[^`]+`)%]%(https?://[^%)]+%)', '%1')
  return block
end

-- A table that is wider than the page scrolls by itself: written tables, and those that cells show
function Table(table) return pandoc.Div(table, {class = 'scrolls'}) end

function RawBlock(block)
  if block.format:match('html') and block.text:match('<table') then return pandoc.Div(block, {class = 'scrolls'}) end
end
