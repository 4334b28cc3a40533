[
  import_deps: [:phoenix],
  inputs: ["*.{ex,exs}", "{lib,test}/**/*.{ex,exs}"]
]
