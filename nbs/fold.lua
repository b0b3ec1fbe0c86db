-- What nbdev hands to Quarto, made readable. Quarto runs this filter over every page.

-- Exported cells come with their source open (`code-fold: show`), below a signature that says the same: they start
-- folded, one click away. The pages under experiments/ are about results, and fold all of their code.
local is_experiment = quarto.doc.input_file:match('experiments/') ~= nil

function CodeBlock(block)
  if block.classes:includes('cell-code') then
    local fold = block.attributes['code-fold']
    if fold == 'show' or (is_experiment and not fold) then block.attributes['code-fold'] = 'true' end
  end
  -- nbdev turns a backticked name into a link, also in the comments of a signature, where no link can be
  block.text = block.text:gsub('%[(`[^`]+`)%]%(https?://[^%)]+%)', '%1')
  return block
end
