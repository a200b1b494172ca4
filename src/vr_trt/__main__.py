from vr_trt.cli import main

main()
