import sys

import requests

address, token = sys.argv[1:]
for payload in ({}, {"name": "x"}):
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    response = requests.post(address + "/v1/api-keys", json=payload, headers=headers)
    print(response.text)
