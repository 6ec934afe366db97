# Two stages: the first has pip and the build backend, the second only what runs.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/dosql && python -m venv /opt/build
# The dependencies change rarely: a layer of their own.
COPY requirements/server.txt requirements/build.txt requirements/
RUN /opt/dosql/bin/pip install --require-hashes --only-binary :all: -r requirements/server.txt \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY dosql dosql
COPY server server
COPY migrations migrations
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
 && /opt/dosql/bin/pip install --no-deps dist/*.whl \
 && /opt/dosql/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin dosql \
 && install --directory --owner=dosql --group=dosql --mode=0700 /data
COPY --from=build /opt/dosql /opt/dosql
ENV PATH=/opt/dosql/bin:$PATH PYTHONUNBUFFERED=1 DOSQL_LISTEN=0.0.0.0:8787 DOSQL_DATA_DIR=/data
USER dosql
WORKDIR /data
VOLUME /data
EXPOSE 8787
# Reachable from outside the container, so DOSQL_ADMIN_TOKEN must be given: without it dosql refuses to start.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/live', timeout=3)"]
ENTRYPOINT ["dosql"]
CMD ["serve"]
