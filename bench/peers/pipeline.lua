-- wrk script: sixteen requests in one write (wrk counts each answer).
init = function(args)
  local one = wrk.format("GET", "/")
  burst = string.rep(one, 16)
end

request = function()
  return burst
end
