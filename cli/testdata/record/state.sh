#!/bin/sh
# Puts a stock engine (DOCKER_HOST) that has nothing but an image busybox:latest into the
# state in which answered.jsonl was recorded. The recorder expects a registry on
# 127.0.0.1:5577 too. Afterwards the engine's data directory in the recording was
# written as /var/lib/docker.
set -e
docker network create front --label tier=web --subnet 10.201.79.0/26
docker volume create data --label keep=yes
docker run -d --name web --label app=shop --label tier=web --network front -p 127.0.0.1:8080:80 \
	-p 7000-7002:7000-7002/udp -p 9001:90 --expose 443 -v data:/data -m 64m busybox sleep 3600
docker run --name job --label app=shop busybox sh -c 'exit 3' || [ $? = 3 ]
docker create --name never busybox echo "a long command line that goes on & on <here>"
docker exec web touch /made
docker commit -m "two lines" job bb:2
