defmodule Demo.HTTP.Closed do
  @moduledoc "The client is gone, or was silent for too long: nobody is left to answer."
  defexception message: "the client is gone"
end

defmodule Demo.HTTP.BadRequest do
  @moduledoc "The body is not framed as its head said it would be."
  defexception message: "malformed body"
end
