# The two images of this project: `make image` builds both, `docker build --target trainer .` one of them.
#
# The first three stages are left behind. `site` and `wheels` are empty folders that a build may replace:
#   --build-context site=DIR     DIR/environment is sourced before every download: settings and certificates of a site
#   --build-context wheels=DIR   wheels to take before those of the package index, such as PyTorch without CUDA
# Both are mounted while a command runs, so nothing of them can stay in an image. docs/image.md says more.

ARG BASE=python:3.12-slim-bookworm

FROM scratch AS site

FROM scratch AS wheels

# uv installs, hatchling builds our wheel, tini becomes process 1.
FROM ${BASE} AS tools
COPY requirements/build.txt /opt/build.txt
RUN --mount=type=bind,from=site,target=/tmp/site \
    set -e; \
    if [ -f /tmp/site/environment ]; then . /tmp/site/environment; fi; \
    python3 -m venv /opt/tools; \
    /opt/tools/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -r /opt/build.txt; \
    if [ ! -x /usr/bin/tini-static ]; then \
      apt-get update -q; \
      apt-get install -qy --no-install-recommends tini; \
    fi

# Our own code, by target: a change of the operator leaves the trainer's image as it was. The wheel's description is not
# needed in an image, and its file changes often.
FROM tools AS trainer-wheel
WORKDIR /source
RUN touch README.md
COPY pyproject.toml LICENSE ./
COPY crds/ytrain_api crds/ytrain_api
COPY trainer_image/ytrain trainer_image/ytrain
RUN /opt/tools/bin/hatchling build -t wheel -d /dist

FROM ${BASE} AS trainer
ENV LANG=C.UTF-8 PATH=/opt/ytrain/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=tools /usr/bin/tini-static /usr/local/bin/tini
COPY requirements/deepspeed.txt /opt/requirements.txt
# The names of the wheels: a build with others must not find this step done.
ARG WHEELS=none
# --no-cache: the wheels are unpacked once and then moved. Bytecode is made here, as nobody can write it later.
RUN --mount=type=bind,from=site,target=/tmp/site \
    --mount=type=bind,from=wheels,target=/tmp/wheels \
    --mount=type=bind,from=tools,source=/opt/tools,target=/tmp/tools \
    set -e; \
    if [ -f /tmp/site/environment ]; then . /tmp/site/environment; fi; \
    echo "wheels: ${WHEELS}"; \
    /tmp/tools/bin/uv venv --quiet --no-config --python "$(command -v python3)" /opt/ytrain; \
    /tmp/tools/bin/uv pip install --quiet --no-cache --compile-bytecode --find-links /tmp/wheels \
      --python /opt/ytrain/bin/python -r /opt/requirements.txt; \
    rm -f /tmp/uv-*.lock; \
    echo "ytrain:x:1000:" >> /etc/group; \
    echo "ytrain:x:1000:1000::/tmp:/usr/sbin/nologin" >> /etc/passwd
# Whoever runs it: the root file system may be read-only and the user without a name; caches go to /tmp, an emptyDir.
ENV HOME=/tmp USER=ytrain LOGNAME=ytrain PYTHONUNBUFFERED=1
# Copied, not mounted: buildah does not look into mounts when it asks whether a step is done already.
COPY --from=trainer-wheel /dist /opt/dist
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/tmp/tools \
    set -e; \
    /tmp/tools/bin/uv pip install --quiet --no-config --offline --no-cache --no-deps --compile-bytecode \
      --python /opt/ytrain/bin/python /opt/dist/*.whl; \
    rm -f /opt/ytrain/bin/ytrain-operator
LABEL org.opencontainers.image.title="ytrain trainer" \
      org.opencontainers.image.description="Fine-tunes language models: the pods of a YTrainJob" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /tmp
# tini: an agent has grandchildren, whose ends process 1 must take note of; and a process 1 without tini does not hear
# SIGTERM while it still imports.
ENTRYPOINT ["tini", "--", "ytrain"]
CMD ["--help"]

FROM tools AS operator-wheel
WORKDIR /source
RUN touch README.md
COPY pyproject.toml LICENSE ./
COPY crds/ytrain_api crds/ytrain_api
COPY operator/ytrain_operator operator/ytrain_operator
RUN /opt/tools/bin/hatchling build -t wheel -d /dist

FROM ${BASE} AS operator
ENV LANG=C.UTF-8 PATH=/opt/ytrain/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=tools /usr/bin/tini-static /usr/local/bin/tini
COPY requirements/operator.txt /opt/requirements.txt
RUN --mount=type=bind,from=site,target=/tmp/site \
    --mount=type=bind,from=tools,source=/opt/tools,target=/tmp/tools \
    set -e; \
    if [ -f /tmp/site/environment ]; then . /tmp/site/environment; fi; \
    /tmp/tools/bin/uv venv --quiet --no-config --python "$(command -v python3)" /opt/ytrain; \
    /tmp/tools/bin/uv pip install --quiet --no-cache --compile-bytecode \
      --python /opt/ytrain/bin/python -r /opt/requirements.txt; \
    rm -f /tmp/uv-*.lock; \
    echo "ytrain:x:1000:" >> /etc/group; \
    echo "ytrain:x:1000:1000::/tmp:/usr/sbin/nologin" >> /etc/passwd
ENV HOME=/tmp USER=ytrain LOGNAME=ytrain PYTHONUNBUFFERED=1
COPY --from=operator-wheel /dist /opt/dist
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/tmp/tools \
    set -e; \
    /tmp/tools/bin/uv pip install --quiet --no-config --offline --no-cache --no-deps --compile-bytecode \
      --python /opt/ytrain/bin/python /opt/dist/*.whl; \
    rm -f /opt/ytrain/bin/ytrain
LABEL org.opencontainers.image.title="ytrain operator" \
      org.opencontainers.image.description="Runs YTrainJobs on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "ytrain-operator"]
