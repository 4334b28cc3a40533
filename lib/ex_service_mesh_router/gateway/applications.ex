defmodule ExServiceMeshRouter.Gateway.Applications do
  @moduledoc false
  # Calls OTP's application controller safely while the node stops: the controller then refuses all
  # callers (OTP 26 and later) or never answers. Functions that only read (`Application.get_env/3`,
  # `spec/2`, `loaded_applications/0`) do not call the controller and may be used directly.

  @doc "Returns the running applications, the last started one first."
  @spec running() :: {:ok, [atom()]} | :stopping
  def running do
    with {:ok, applications} <- ask(fn -> :application.which_applications(:infinity) end),
         do: {:ok, for({name, _description, _version} <- applications, do: name)}
  end

  @doc "Returns the applications that are starting."
  @spec starting() :: {:ok, [atom()]} | :stopping
  def starting do
    with {:ok, information} <- ask(&:application.info/0),
         do: {:ok, Enum.map(information[:starting], &elem(&1, 0))}
  end

  @doc "Returns whether the VM still starts the applications of its boot script, which are those of a release."
  @spec booting?() :: boolean()
  def booting?, do: not match?({_status, :started}, :init.get_status())

  @doc "Sets a value, as `Application.put_env/4` does."
  @spec put_env(atom(), atom(), term(), keyword()) :: :ok | :stopping
  def put_env(application, key, value, options \\ []) do
    options = [timeout: :infinity] ++ options

    with {:ok, :ok} <- ask(fn -> Application.put_env(application, key, value, options) end),
         do: :ok
  end

  @doc "Calls a function that calls the controller."
  @spec ask(function()) :: {:ok, term()} | :stopping
  def ask(fun) do
    if stopping?(), do: :stopping, else: {:ok, fun.()}
  catch
    # The node began to stop in between.
    :exit, _reason -> :stopping
  end

  defp stopping?, do: match?({:stopping, _}, :init.get_status())
end
