defmodule ExServiceMeshRouter.Discovery.ClaimTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Discovery.Claim

  @development %{dev_domain: "localhost", own_port: 4000, http2: []}
  @production %{dev_domain: nil, own_port: 4000, http2: []}

  test "has the host of the settings and the development name" do
    claim = Claim.new(AuthWeb.Endpoint, :auth_web, "Auth.Local", @development)
    assert %{hosts: ["auth.local"], derived: ["auth.localhost"], mistake: nil} = claim
    claim = Claim.new(AuthWeb.Endpoint, :auth_web, "auth.local", @production)
    assert %{hosts: ["auth.local"], derived: [], mistake: nil} = claim
  end

  test "reports an invalid host and the hosts that remain" do
    claim = Claim.new(AuthWeb.Endpoint, :auth_web, "auth.local:80", @production)
    assert claim.hosts == []
    assert claim.mistake =~ ~s|AuthWeb.Endpoint gets no route: its `url: [host: "auth.local:80"]`|
    claim = Claim.new(AuthWeb.Endpoint, :auth_web, "a b", @development)
    assert claim.mistake =~ "AuthWeb.Endpoint is only routed as auth.localhost: its"
  end

  test "becomes a service without the gateway's own address as upstream" do
    claim = Claim.new(AuthWeb.Endpoint, :auth_web, "auth.local", @development)
    other = Upstream.tcp({127, 0, 0, 1}, 4001)

    gateway =
      for ip <- [{127, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1}],
          do: Upstream.tcp(ip, 4000)

    service = Claim.service(claim, [other, Upstream.unix("/s") | gateway], false, @development)
    assert service.upstreams == [other, Upstream.unix("/s")]
    assert service.key == {:endpoint, AuthWeb.Endpoint}
    # Another machine's port of that number is its own.
    far = Upstream.tcp({192, 0, 2, 1}, 4000)
    assert Claim.service(claim, [far], false, @development).upstreams == [far]
  end
end
