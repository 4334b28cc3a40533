defmodule ExServiceMeshRouter.Mesh.NoticesTest do
  # What the data plane reports of peers, as lines and events.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Telemetry

  @notices [
    {{:peer_suspect, "b@host: it did not answer within 1 second", 1}, :suspect,
     "the gateway of b@host does not answer (it did not answer within 1 second); new",
     [node: "b@host"]},
    {{:peer_lost, "b@host", 1}, :down,
     "the gateway of b@host is lost; its connections were closed", [node: "b@host"]},
    {{:peer_up, "b@host", 1}, :up, "the gateway of b@host answers", [node: "b@host"]},
    {{:peer_unreachable, "b@host: 10.0.0.2:4600: timed out", 3}, :unreachable,
     "cannot reach the gateway of b@host at 10.0.0.2:4600: timed out. ",
     [node: "b@host", address: "10.0.0.2:4600", reason: "timed out"]},
    {{:peer_unreachable, "b@host: [fdaa::2]:4600: Connection refused (os error 111)", 1},
     :unreachable, "at [fdaa::2]:4600: Connection refused (os error 111). ",
     [node: "b@host", address: "[fdaa::2]:4600", reason: "Connection refused (os error 111)"]},
    {{:mesh_stranger, "10.9.9.9: it has no known key", 2}, :refused,
     "refused connections to the mesh port 2 times, from 10.9.9.9: it has no known key. ",
     [client: "10.9.9.9", reason: "it has no known key"]}
  ]

  test "each has a line that says what to do, and an event of the catalogue" do
    gateway = start_gateway()
    reporter = Module.concat(gateway, Reporter)
    test = self()

    for {{_, _, count} = notice, event, line, metadata} <- @notices do
      name = [:ex_service_mesh_router, :peer, event]

      handler = fn _name, measurements, metadata, nil ->
        send(test, {event, measurements, metadata})
      end

      apply(:telemetry, :attach, [{__MODULE__, event}, name, handler, nil])

      log =
        capture_log(fn ->
          send(reporter, {:mesh, :notices, [notice]})
          :sys.get_state(reporter)
        end)

      apply(:telemetry, :detach, [{__MODULE__, event}])
      assert log =~ line
      expected = metadata |> Map.new() |> Map.put(:gateway, gateway)
      assert_received {^event, %{count: ^count}, ^expected}
      entry = Enum.find(Telemetry.events(), &(&1.event == name))
      assert Enum.sort(entry.metadata) == Enum.sort(Map.keys(expected))
    end
  end
end
