defmodule BillingWeb.UploadLive do
  use BillingWeb, :live_view

  @megabytes 100

  @impl true
  def mount(_params, _session, socket) do
    {:ok,
     socket
     |> assign(page_title: "Upload", done: [], limit: @megabytes)
     |> allow_upload(:file, accept: :any, max_file_size: @megabytes * 1_000_000)}
  end

  @impl true
  def render(assigns) do
    ~H"""
    <.billing_page tenant={@tenant}>
      <h1>Upload</h1>
      <.card>
        <p class="soft">
          A LiveView upload of up to {@limit} MB, through the page's WebSocket.
        </p>
        <form id="upload" phx-change="check" phx-submit="save">
          <p><.live_file_input upload={@uploads.file} /></p>
          <div :for={entry <- @uploads.file.entries}>
            <p>{entry.client_name}</p>
            <progress value={entry.progress} max="100">{entry.progress}%</progress>
            <p :for={error <- upload_errors(@uploads.file, entry)} class="bad">{error}</p>
          </div>
          <button>Upload</button>
        </form>
      </.card>
      <.card :if={@done != []} title="Arrived">
        <dl id="done">
          <%= for file <- @done do %>
            <dt>{file.name}</dt>
            <dd class="mono">{file.size} bytes, SHA-256 {file.sha256}</dd>
          <% end %>
        </dl>
      </.card>
    </.billing_page>
    """
  end

  @impl true
  def handle_event("check", _params, socket), do: {:noreply, socket}

  def handle_event("save", _params, socket) do
    files =
      consume_uploaded_entries(socket, :file, fn %{path: path}, entry ->
        {:ok, file(path, entry)}
      end)

    {:noreply, update(socket, :done, &(files ++ &1))}
  end

  defp file(path, entry) do
    hash =
      path
      |> File.stream!([], 65_536)
      |> Enum.reduce(:crypto.hash_init(:sha256), &:crypto.hash_update(&2, &1))

    %{
      name: entry.client_name,
      size: File.stat!(path).size,
      sha256: hash |> :crypto.hash_final() |> Base.encode16(case: :lower)
    }
  end
end
