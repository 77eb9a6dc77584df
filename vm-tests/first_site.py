"""The steps of docs/first-site.md, in the words of that page."""

ROUTE = """
[[route]]
hosts = ["wiki.example.com", "www.wiki.example.com"]
upstreams = ["http://127.0.0.1:8080"]
redirect-to-primary = true
"""

start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("docker.service")
wait_for_pebble()
machine.wait_for_unit("fairlead-docker-events.service")
machine.succeed("docker load -i /etc/fairlead-test/image.tar", "docker tag fairlead-test/site traefik/whoami")
trusting = f"CURL_CA_BUNDLE={ISSUING_ROOT}"

with subtest("2. the settings hold"):
    machine.succeed("fairlead check", "fairlead reload")

with subtest("3. and 4. a container is a site, and why says so"):
    machine.succeed("docker run -d --name whoami --label fairlead.hosts=app.example.com traefik/whoami")
    machine.wait_until_succeeds("fairlead why app.example.com", timeout=60)
    machine.succeed(f"{trusting} curl --fail https://app.example.com/")

with subtest("5. a site that is no container"):
    machine.succeed("docker run -d --name wiki --hostname wiki -p 127.0.0.1:8080:80 traefik/whoami")
    machine.succeed(f"cat > /etc/fairlead/routes.d/wiki.toml <<'END'{ROUTE}END", "fairlead reload")
    machine.wait_until_succeeds(f"{trusting} curl --fail https://wiki.example.com/ | grep -x wiki", timeout=60)
    to = machine.succeed(f"{trusting} curl -o /dev/null -w '%{{redirect_url}}' https://www.wiki.example.com/x")
    assert to == "https://wiki.example.com/x", to
