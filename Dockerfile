# An image with the command `neas`, from the locked requirements (docs/install.md):
#   docker build --tag neas .                      for CPUs
#   docker build --tag neas:cuda --target cuda .   for NVIDIA GPUs
ARG PYTHON=3.12

# The full image has make and a compiler; they do not reach the images below.
FROM python:${PYTHON}-bookworm AS build
ENV PIP_NO_CACHE_DIR=1
WORKDIR /opt/neas
# The libraries first: they stay as long as the lock does.
COPY Makefile requirements.lock ./
RUN make .venv/.stamp
COPY pyproject.toml setup.py README.md LICENSE ./
COPY configs ./configs
COPY neas_tf ./neas_tf
# Bytecode is written here, as who runs the image may not; some libraries hold files that are no Python of today.
RUN make setup && { .venv/bin/python -m compileall -qq -j 0 .venv neas_tf || true; }

FROM build AS build-cuda
COPY requirements-cuda.lock ./
RUN make setup-cuda

FROM python:${PYTHON}-slim-bookworm AS runtime
RUN useradd --uid 1000 --create-home neas && mkdir /work && chown neas /work
ENV PATH=/opt/neas/.venv/bin:$PATH
WORKDIR /work
ENTRYPOINT ["neas"]
CMD ["--help"]

FROM runtime AS cuda
# What the NVIDIA container toolkit lets in.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/neas /opt/neas
USER 1000

# The last one is what a build without --target makes.
FROM runtime AS cpu
COPY --from=build /opt/neas /opt/neas
USER 1000
