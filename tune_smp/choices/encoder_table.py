"""Every encoder in one table; `encoders` turns its lines into records.

* name: what users write; the 113 names of the original WIPP plugin stay valid for ever.
* params: parameters of a Unet with three channels in and one class out, counted by building it (of a DPT for ViT).
* px: the only tile size that it takes, where it takes only one. ViT of patches of 14 px (DINOv2, EVA) are not here: the
  features of smp's DPT do not meet in size.
* weights: words a user may write; ``-``: none, random only. ``tu-`` encoders have one set, timm's first, by whatever
  word: called imagenet, or by the data that it comes from. Those of ConvNeXt V2 (CC BY-NC), ssl, swsl and MixVision are
  not for commercial use; dinov3 has a licence of its own.
* smp_name: what segmentation-models-pytorch is given today, where that is not the name itself.
"""

TABLE = """\
family       name                                  params  px weights smp_name
ResNet       resnet18                            14328209   - imagenet,ssl,swsl
ResNet       resnet34                            24436369   - imagenet
ResNet       resnet50                            32521105   - imagenet,ssl,swsl
ResNet       resnet101                           51513233   - imagenet
ResNet       resnet152                           67156881   - imagenet
ResNeXt      resnext50_32x4d                     31992977   - imagenet,ssl,swsl
ResNeXt      resnext101_32x4d                    51141777   - ssl,swsl
ResNeXt      resnext101_32x8d                    95755409   - imagenet,instagram,ssl,swsl
ResNeXt      resnext101_32x16d                  200990865   - instagram,ssl,swsl
ResNeXt      resnext101_32x32d                  475494545   - instagram
ResNeXt      resnext101_32x48d                  835375249   - instagram
ResNeSt      timm-resnest14d                     17575761   - imagenet tu-resnest14d
ResNeSt      timm-resnest26d                     24033521   - imagenet tu-resnest26d
ResNeSt      timm-resnest50d                     34447313   - imagenet tu-resnest50d
ResNeSt      timm-resnest101e                    55257521   - imagenet tu-resnest101e
ResNeSt      timm-resnest200e                    77184049   - imagenet tu-resnest200e
ResNeSt      timm-resnest269e                   117911985   - imagenet tu-resnest269e
ResNeSt      timm-resnest50d_4s2x40d             37381665   - imagenet tu-resnest50d_4s2x40d
ResNeSt      timm-resnest50d_1s4x24d             32641073   - imagenet tu-resnest50d_1s4x24d
Res2Ne(X)t   timm-res2net50_26w_4s               32663193   - imagenet tu-res2net50_26w_4s
Res2Ne(X)t   timm-res2net101_26w_4s              52170761   - imagenet tu-res2net101_26w_4s
Res2Ne(X)t   timm-res2net50_26w_6s               44015521   - imagenet tu-res2net50_26w_6s
Res2Ne(X)t   timm-res2net50_26w_8s               55367849   - imagenet tu-res2net50_26w_8s
Res2Ne(X)t   timm-res2net50_48w_2s               32251377   - imagenet tu-res2net50_48w_2s
Res2Ne(X)t   timm-res2net50_14w_8s               32023889   - imagenet tu-res2net50_14w_8s
Res2Ne(X)t   timm-res2next50                     31635537   - imagenet tu-res2next50
RegNet(x/y)  timm-regnetx_002                     4780897   - imagenet tu-regnetx_002
RegNet(x/y)  timm-regnetx_004                     7306737   - imagenet tu-regnetx_004
RegNet(x/y)  timm-regnetx_006                     8763441   - imagenet tu-regnetx_006
RegNet(x/y)  timm-regnetx_008                    10171505   - imagenet tu-regnetx_008
RegNet(x/y)  timm-regnetx_016                    12742113   - imagenet tu-regnetx_016
RegNet(x/y)  timm-regnetx_032                    19070481   - imagenet tu-regnetx_032
RegNet(x/y)  timm-regnetx_040                    26692177   - imagenet tu-regnetx_040
RegNet(x/y)  timm-regnetx_064                    31869329   - imagenet tu-regnetx_064
RegNet(x/y)  timm-regnetx_080                    45245457   - imagenet tu-regnetx_080
RegNet(x/y)  timm-regnetx_120                    52924209   - imagenet tu-regnetx_120
RegNet(x/y)  timm-regnetx_160                    60938481   - imagenet tu-regnetx_160
RegNet(x/y)  timm-regnetx_320                   116349585   - imagenet tu-regnetx_320
RegNet(x/y)  timm-regnety_002                     5259101   - imagenet tu-regnety_002
RegNet(x/y)  timm-regnety_004                     6732281   - imagenet tu-regnety_004
RegNet(x/y)  timm-regnety_006                     8782177   - imagenet tu-regnety_006
RegNet(x/y)  timm-regnety_008                     9373929   - imagenet tu-regnety_008
RegNet(x/y)  timm-regnety_016                    14488103   - imagenet tu-regnety_016
RegNet(x/y)  timm-regnety_032                    24213083   - imagenet tu-regnety_032
RegNet(x/y)  timm-regnety_040                    24727657   - imagenet tu-regnety_040
RegNet(x/y)  timm-regnety_064                    35202749   - imagenet tu-regnety_064
RegNet(x/y)  timm-regnety_080                    45673869   - imagenet tu-regnety_080
RegNet(x/y)  timm-regnety_120                    58640697   - imagenet tu-regnety_120
RegNet(x/y)  timm-regnety_160                    92204773   - imagenet tu-regnety_160
RegNet(x/y)  timm-regnety_320                   155217499   - imagenet tu-regnety_320
GERNet       timm-gernet_s                       12827338   - imagenet tu-gernet_s
GERNet       timm-gernet_m                       27438321   - imagenet tu-gernet_m
GERNet       timm-gernet_l                       37373681   - imagenet tu-gernet_l
SE-Net       senet154                           122071489   - imagenet
SE-Net       se_resnet50                         35052097   - imagenet
SE-Net       se_resnet101                        56290945   - imagenet
SE-Net       se_resnet152                        73785921   - imagenet
SE-Net       se_resnext50_32x4d                  34523969   - imagenet
SE-Net       se_resnext101_32x4d                 55919489   - imagenet
SK-ResNe(X)t timm-skresnet18                     14593649   - imagenet
SK-ResNe(X)t timm-skresnet34                     24916417   - imagenet
SK-ResNe(X)t timm-skresnext50_32x4d              32952129   - imagenet
DenseNet     densenet121                         13607633   - imagenet
DenseNet     densenet169                         21202641   - imagenet
DenseNet     densenet201                         28580561   - imagenet
DenseNet     densenet161                         38738321   - imagenet
Inception    inceptionresnetv2                   62029297   - imagenet,imagenet+background
Inception    inceptionv4                         48791921   - imagenet,imagenet+background
Inception    xception                            28769401   - imagenet
EfficientNet efficientnet-b0                      6251469   - imagenet,advprop
EfficientNet efficientnet-b1                      8757105   - imagenet,advprop
EfficientNet efficientnet-b2                     10046291   - imagenet,advprop
EfficientNet efficientnet-b3                     13159033   - imagenet,advprop
EfficientNet efficientnet-b4                     20225689   - imagenet,advprop
EfficientNet efficientnet-b5                     31216001   - imagenet,advprop
EfficientNet efficientnet-b6                     43825193   - imagenet,advprop
EfficientNet efficientnet-b7                     67095329   - imagenet,advprop
EfficientNet timm-efficientnet-b0                 6251469   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b1                 8757105   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b2                10046291   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b3                13159033   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b4                20225689   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b5                31216001   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b6                43825193   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b7                67095329   - imagenet,advprop,noisy-student
EfficientNet timm-efficientnet-b8                88123391   - imagenet,advprop
EfficientNet timm-efficientnet-l2               480561829   - noisy-student,noisy-student-475
EfficientNet timm-efficientnet-lite0              5198161   - imagenet tu-tf_efficientnet_lite0
EfficientNet timm-efficientnet-lite1              5962833   - imagenet tu-tf_efficientnet_lite1
EfficientNet timm-efficientnet-lite2              6698641   - imagenet tu-tf_efficientnet_lite2
EfficientNet timm-efficientnet-lite3              8880209   - imagenet tu-tf_efficientnet_lite3
EfficientNet timm-efficientnet-lite4             13819729   - imagenet tu-tf_efficientnet_lite4
EfficientNet tu-tf_efficientnetv2_b0              7568609   - imagenet
EfficientNet tu-tf_efficientnetv2_b1              8569957   - imagenet
EfficientNet tu-tf_efficientnetv2_b2             10414143   - imagenet
EfficientNet tu-tf_efficientnetv2_b3             14581487   - imagenet
EfficientNet tu-tf_efficientnetv2_s              22093473   - imagenet
EfficientNet tu-tf_efficientnetv2_m              55091781   - imagenet
EfficientNet tu-tf_efficientnetv2_l             119739313   - imagenet
MobileNet    mobilenet_v2                         6628945   - imagenet
MobileNet    timm-mobilenetv3_large_075           4886049   - imagenet tu-tf_mobilenetv3_large_075
MobileNet    timm-mobilenetv3_large_100           6685825   - imagenet tu-tf_mobilenetv3_large_100
MobileNet    timm-mobilenetv3_large_minimal_100   5127081   - imagenet tu-tf_mobilenetv3_large_minimal_100
MobileNet    timm-mobilenetv3_small_075           2881913   - imagenet tu-tf_mobilenetv3_small_075
MobileNet    timm-mobilenetv3_small_100           3585649   - imagenet tu-tf_mobilenetv3_small_100
MobileNet    timm-mobilenetv3_small_minimal_100   3087529   - imagenet tu-tf_mobilenetv3_small_minimal_100
MobileNet    tu-mobilenetv4_conv_small_050        2792273   - imagenet
MobileNet    tu-mobilenetv4_conv_small            4975537   - imagenet
MobileNet    tu-mobilenetv4_conv_medium          11092129   - imagenet
MobileNet    tu-mobilenetv4_conv_large           34057337   - imagenet
MobileNet    tu-mobilenetv4_hybrid_medium        12451265   - imagenet
MobileNet    tu-mobilenetv4_hybrid_large         39231097   - imagenet
DPN          dpn68                               16951483   - imagenet
DPN          dpn68b                              16951483   - imagenet+5k
DPN          dpn92                               46950801   - imagenet+5k
DPN          dpn98                               71341585   - imagenet
DPN          dpn107                              98785297   - imagenet+5k
DPN          dpn131                              89707345   - imagenet
VGG          vgg11                               18254033   - imagenet
VGG          vgg11_bn                            18259537   - imagenet
VGG          vgg13                               18438545   - imagenet
VGG          vgg13_bn                            18444433   - imagenet
VGG          vgg16                               23748241   - imagenet
VGG          vgg16_bn                            23756689   - imagenet
VGG          vgg19                               29057937   - imagenet
VGG          vgg19_bn                            29068945   - imagenet
MixVision    mit_b0                               5549489   - imagenet
MixVision    mit_b1                              16432145   - imagenet
MixVision    mit_b2                              27477009   - imagenet
MixVision    mit_b3                              47352849   - imagenet
MixVision    mit_b4                              64123409   - imagenet
MixVision    mit_b5                              84723729   - imagenet
MobileOne    mobileone_s0                         8585793   - imagenet
MobileOne    mobileone_s1                         9147345   - imagenet
MobileOne    mobileone_s2                        13576913   - imagenet
MobileOne    mobileone_s3                        16249937   - imagenet
MobileOne    mobileone_s4                        21509817   - imagenet
ConvNeXt     tu-convnext_atto                     5774473   - imagenet
ConvNeXt     tu-convnext_femto                    7476833   - imagenet
ConvNeXt     tu-convnext_pico                    11664913   - imagenet
ConvNeXt     tu-convnext_nano                    18572993   - imagenet
ConvNeXt     tu-convnext_tiny                    31928753   - imagenet
ConvNeXt     tu-convnext_small                   53563313   - imagenet
ConvNeXt     tu-convnext_base                    92651473   - imagenet
ConvNeXt     tu-convnext_large                  203268113   - imagenet
ConvNeXt     tu-convnextv2_atto                   5787353   - imagenet
ConvNeXt     tu-convnextv2_femto                  7492289   - imagenet
ConvNeXt     tu-convnextv2_pico                  11685521   - imagenet
ConvNeXt     tu-convnextv2_nano                  18603233   - imagenet
ConvNeXt     tu-convnextv2_tiny                  31975121   - imagenet
ConvNeXt     tu-convnextv2_base                  92777809   - imagenet
ConvNeXt     tu-convnextv2_large                203457617   - imagenet
Swin         tu-swin_tiny_patch4_window7_224     31627979 224 imagenet
Swin         tu-swin_small_patch4_window7_224    52945883 224 imagenet
Swin         tu-swin_base_patch4_window7_224     91828233 224 imagenet
Swin         tu-swinv2_tiny_window8_256          31686779 256 imagenet
Swin         tu-swinv2_small_window8_256         53068043 256 imagenet
Swin         tu-swinv2_base_window8_256          91978825 256 imagenet
ViT          tu-vit_tiny_patch16_224             34879913 224 imagenet
ViT          tu-vit_small_patch16_224            52639337 224 imagenet
ViT          tu-vit_base_patch16_224            121778153 224 imagenet
ViT          tu-vit_tiny_patch16_384             34952873 384 imagenet
ViT          tu-vit_small_patch16_384            52785257 384 imagenet
ViT          tu-vit_base_patch16_384            122069993 384 imagenet
ViT          tu-vit_small_patch16_dinov3         52175617   - dinov3
ViT          tu-vit_small_plus_patch16_dinov3    59271937   - dinov3
ViT          tu-vit_base_patch16_dinov3         120851713   - dinov3
MaxViT       tu-maxvit_nano_rw_256               18088821 256 imagenet
MaxViT       tu-maxvit_tiny_tf_224               33291545 224 imagenet
MaxViT       tu-maxvit_tiny_tf_384               33352025 384 imagenet
MaxViT       tu-maxvit_tiny_tf_512               33424601 512 imagenet
MaxViT       tu-maxvit_small_tf_224              71695421 224 imagenet
MaxViT       tu-maxvit_base_tf_224              122235173 224 imagenet
PVT          tu-pvt_v2_b0                         5639857   - imagenet
PVT          tu-pvt_v2_b1                        16776721   - imagenet
PVT          tu-pvt_v2_b2                        28130577   - imagenet
PVT          tu-pvt_v2_b3                        48006417   - imagenet
PVT          tu-pvt_v2_b4                        65323793   - imagenet
PVT          tu-pvt_v2_b5                        84723729   - imagenet
HRNet        tu-hrnet_w18_small                   7942129   - imagenet
HRNet        tu-hrnet_w18                        16053669   - imagenet
HRNet        tu-hrnet_w32                        35987345   - imagenet
HRNet        tu-hrnet_w48                        72224529   - imagenet
CAFormer     tu-caformer_s18                     26517633   - imagenet
CAFormer     tu-caformer_s36                     39473079   - imagenet
CAFormer     tu-caformer_m36                     56232503   - imagenet
HGNet        tu-hgnetv2_b0                        6900589   - imagenet
HGNet        tu-hgnetv2_b2                       13012179   - imagenet
HGNet        tu-hgnetv2_b4                       22474289   - imagenet
SAM2         tu-sam2_hiera_tiny                  30959633   - sam2
SAM2         tu-sam2_hiera_small                 38057489   - sam2
SAM2         tu-sam2_hiera_base_plus             73274321   - sam2
SAM2         tu-sam2_hiera_large                217724801   - sam2
Test         tu-test_efficientnet                 1575117   - -
"""
