# examples/umbrella has a formatter of its own: it needs Phoenix's rules.
[
  inputs: [
    "{mix,.formatter,.iex}.exs",
    "{config,lib,test}/**/*.{ex,exs}",
    "examples/demo/**/*.{ex,exs}"
  ]
]
