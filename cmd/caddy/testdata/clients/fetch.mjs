const [address, token] = process.argv.slice(2);
for (const body of [{}, { name: "x" }]) {
  const options = {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(`${address}/v1/api-keys`, options);
  console.log(JSON.stringify(await response.json()));
}
