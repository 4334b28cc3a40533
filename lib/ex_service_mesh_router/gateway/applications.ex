defmodule ExServiceMeshRouter.Gateway.Applications do
  @moduledoc false
  # Asks OTP's application controller, and survives that the node stops: the controller then refuses
  # all callers (OTP 26 and later) or never answers. What only reads (`Application.get_env/3`,
  # `spec/2`, `loaded_applications/0`) does not pass the controller and needs none of this.

  @doc "The applications that run, the one that started last first."
  @spec running() :: {:ok, [atom()]} | :stopping
  def running do
    with {:ok, applications} <- ask(fn -> :application.which_applications(:infinity) end),
         do: {:ok, for({name, _description, _version} <- applications, do: name)}
  end

  @doc "The applications that are about to start."
  @spec starting() :: {:ok, [atom()]} | :stopping
  def starting do
    with {:ok, information} <- ask(&:application.info/0),
         do: {:ok, Enum.map(information[:starting], &elem(&1, 0))}
  end

  @doc "Sets a value, as `Application.put_env/4` does."
  @spec put_env(atom(), atom(), term(), keyword()) :: :ok | :stopping
  def put_env(application, key, value, options \\ []) do
    options = [timeout: :infinity] ++ options

    with {:ok, :ok} <- ask(fn -> Application.put_env(application, key, value, options) end),
         do: :ok
  end

  @doc "Calls a function that asks the controller."
  @spec ask(function()) :: {:ok, term()} | :stopping
  def ask(fun) do
    if stopping?(), do: :stopping, else: {:ok, fun.()}
  catch
    # It began to stop in between.
    :exit, _reason -> :stopping
  end

  defp stopping?, do: match?({:stopping, _}, :init.get_status())
end
