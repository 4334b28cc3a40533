defmodule Demo.Endpoint do
  @moduledoc """
  Makes a module that discovery finds, in place of a Phoenix endpoint. `Demo.Service` runs its server
  under the name of the module. See `ExServiceMeshRouter.DiscoverableEndpoint`.
  """

  defmacro __using__(_options) do
    quote do
      @behaviour ExServiceMeshRouter.DiscoverableEndpoint

      @impl true
      def config(key), do: Application.get_env(:demo, __MODULE__)[key]

      @impl true
      def url, do: "http://" <> config(:url)[:host]

      @impl true
      def server_info(:http), do: Demo.Endpoint.address(__MODULE__)
      def server_info(_scheme), do: :error
    end
  end

  @doc false
  def address(server) do
    %URI{host: host, port: port} = server |> ExServiceMeshRouter.Http.Server.url() |> URI.parse()
    {:ok, ip} = :inet.parse_address(to_charlist(host))
    {:ok, {ip, port}}
  end
end

defmodule Demo.Auth do
  @moduledoc "The endpoint of the service `auth`."
  use Demo.Endpoint
end

defmodule Demo.Billing do
  @moduledoc "The endpoint of the service `billing`."
  use Demo.Endpoint
end
